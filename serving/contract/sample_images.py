"""The small images to try a service with, which travel with the package."""

from pathlib import Path

SAMPLES: tuple[Path, ...] = tuple(sorted(Path(__file__).with_name("samples").glob("*.jpg")))
