"""Real pictures for the golden examples of models that were not trained here."""

from pathlib import Path

import numpy as np

from export.data.datasets import Places
from export.data.folders import SUFFIXES, read_picture
from export.training.trained import GOLDEN_EXAMPLES
from serving.contract.errors import DataNotFound
from serving.contract.image import Pixels


def example_pictures(folder: Path | None, places: Places) -> tuple[Pixels, ...]:
    """A few photos: of --examples, of SIGHTLINE_DATA/imagenet/photos, or cut from the two that scikit-learn brings.

    Each uint8 (H, W, 3). Raises DataNotFound when a named folder holds no picture.
    """
    for place in (folder, places.root / "imagenet" / "photos" if places.root else None):
        files = [p for p in sorted(place.iterdir()) if p.suffix.lower() in SUFFIXES] if place and place.is_dir() else []
        if files:
            return tuple(read_picture(path) for path in files[:GOLDEN_EXAMPLES])
        if folder is not None:
            raise DataNotFound(f"--examples {folder} holds no pictures")
    return _of_scikit_learn()


def _of_scikit_learn() -> tuple[Pixels, ...]:
    """Quarters of `china.jpg` and `flower.jpg`, 427 x 640."""
    from sklearn.datasets import load_sample_images

    quarters = []
    for photo in load_sample_images().images:
        for top in (0, 213):
            for left in (0, 320):
                quarters.append(np.ascontiguousarray(photo[top : top + 213, left : left + 320]))
    return tuple(quarters[:GOLDEN_EXAMPLES])
