"""Real photos for the golden examples of models that were not trained here."""

from pathlib import Path

import numpy as np

from export.data.datasets import Places
from export.data.folders import SUFFIXES, read_photo
from serving.contract.errors import DataNotFound
from serving.contract.image import Pixels

GOLDEN_EXAMPLES = 8  # images in a version


def example_photos(folder: Path | None, places: Places) -> tuple[Pixels, ...]:
    """Read a few photos: from --examples, else SIGHTLINE_DATA/imagenet/photos, else the two that scikit-learn brings.

    Returns uint8 (H, W, 3) each. Raises DataNotFound where the named folder holds no image.
    """
    for place in (folder, places.root / "imagenet" / "photos" if places.root else None):
        files = [p for p in sorted(place.iterdir()) if p.suffix.lower() in SUFFIXES] if place and place.is_dir() else []
        if files:
            return tuple(read_photo(path) for path in files[:GOLDEN_EXAMPLES])
        if folder is not None:
            raise DataNotFound(f"--examples {folder} holds no images.")
    return _from_scikit_learn()


def _from_scikit_learn() -> tuple[Pixels, ...]:
    """Cut `china.jpg` and `flower.jpg`, 427 x 640, into quarters."""
    from sklearn.datasets import load_sample_images

    quarters = []
    for photo in load_sample_images().images:
        for top in (0, 213):
            for left in (0, 320):
                quarters.append(np.ascontiguousarray(photo[top : top + 213, left : left + 320]))
    return tuple(quarters[:GOLDEN_EXAMPLES])
