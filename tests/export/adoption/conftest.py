"""Run `sightline export` in this process, as the families' tests do."""

from tests.export.families.conftest import exported, run

__all__ = ["exported", "run"]
