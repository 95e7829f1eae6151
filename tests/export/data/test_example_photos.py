"""Photos for golden examples."""

from pathlib import Path

import pytest
from PIL import Image

from export.data.datasets import Places
from export.data.example_photos import GOLDEN_EXAMPLES, example_photos
from serving.contract.errors import DataNotFound


@pytest.fixture
def nowhere(tmp_path: Path) -> Places:
    return Places(data=None, root=None, keras=tmp_path / "keras")


def test_folders_in_the_folder_of_examples_are_searched(tmp_path: Path, nowhere: Places) -> None:
    for name, side in (("cats/1.png", 3), ("dogs/big/2.png", 5)):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (side, side)).save(tmp_path / name)
    assert [photo.shape[0] for photo in example_photos(tmp_path, nowhere)] == [3, 5]


def test_a_folder_without_images_is_refused(tmp_path: Path, nowhere: Places) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataNotFound, match="holds no images"):
        example_photos(tmp_path, nowhere)


def test_without_any_other_photos_there_are_enough_of_our_own(nowhere: Places) -> None:
    photos = example_photos(None, nowhere)
    assert len(photos) == GOLDEN_EXAMPLES
    assert len({photo.tobytes() for photo in photos}) == GOLDEN_EXAMPLES
