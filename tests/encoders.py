"""The face encoder as a model, as `sightline export face-encoder` exports it."""

from pathlib import Path

from click.testing import CliRunner

from export.families.face_encoder import command


def export_face_encoder(models: Path) -> None:
    result = CliRunner().invoke(command, ["--out", str(models)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
