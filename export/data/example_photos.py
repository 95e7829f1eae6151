"""Real photos for the golden examples of models that were not trained here."""

from pathlib import Path

import numpy as np

from export.data.datasets import Places
from export.data.folders import read_photo
from serving.contract.errors import DataNotFound
from serving.contract.image import Pixels
from serving.contract.picture_files import LeftOut, picture_files
from serving.contract.sample_images import SAMPLES

GOLDEN_EXAMPLES = 8  # images in a version


def example_photos(folder: Path | None, places: Places) -> tuple[Pixels, ...]:
    """Read a few photos: from --examples and its folders, else SIGHTLINE_DATA/imagenet/photos, else Sightline's own.

    Returns uint8 (H, W, 3) each. Raises DataNotFound where the named folder holds no image.
    """
    for place in (folder, places.root / "imagenet" / "photos" if places.root else None):
        files = sorted(map(Path, picture_files(str(place), LeftOut()))) if place and place.is_dir() else []
        if files:
            return tuple(read_photo(path) for path in files[:GOLDEN_EXAMPLES])
        if folder is not None:
            raise DataNotFound(f"--examples {folder} holds no images.")
    return _samples()


def _samples() -> tuple[Pixels, ...]:
    """The sample photos, then quarters of them, until there are enough."""
    photos = [read_photo(path) for path in SAMPLES]
    quarters = [
        quarter for photo in photos for half in np.array_split(photo, 2) for quarter in np.array_split(half, 2, 1)
    ]
    return tuple(np.ascontiguousarray(photo) for photo in [*photos, *quarters][:GOLDEN_EXAMPLES])
