"""Each preset of --like gives the tensor of the library that it is named after, within one level of 255."""

import importlib.util
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from export.adoption.layout import Layout
from export.adoption.resizing import LIKE, ResizingOptions, preprocessing_of
from export.data.example_photos import SAMPLES
from serving.contract.errors import UsageError

SIZE = 224


def options(**given: Any) -> ResizingOptions:
    return ResizingOptions(**{field.name: None for field in fields(ResizingOptions)} | {"polarity": "as_is"} | given)


def resized(photo: Path, like: str, size: int = SIZE) -> Any:
    preprocessing = preprocessing_of(Layout(size, size, "rgb"), options(like=like))
    return preprocessing.pixels(np.asarray(Image.open(photo).convert("RGB"))).astype(float)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos as PNG files, so that every library decodes the same pixels: the samples, and odd sizes of them."""
    random = np.random.default_rng(0)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for index in range(24):
        photo = Image.open(SAMPLES[index % len(SAMPLES)]).convert("RGB")
        sides = random.integers(49, 700, 2).tolist()
        photo.resize((int(sides[0]), int(sides[1]))).save(tmp_path / "photos" / "a" / f"{index:02d}.png")
    return tmp_path / "photos"


def photos(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def test_like_keras_is_image_dataset_from_directory(folder: Path) -> None:
    keras = pytest.importorskip("keras")
    data = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=(SIZE, SIZE), shuffle=False, batch_size=1, verbose=False
    )
    for photo, theirs in zip(photos(folder), data, strict=True):
        # Keras keeps fractions, Pillow cuts them off
        assert np.abs(resized(photo, "keras") - np.asarray(theirs)[0]).max() <= 1.01, photo


def test_like_keras_generator_is_image_data_generator(folder: Path) -> None:
    keras = pytest.importorskip("keras")
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator()
    data = generator.flow_from_directory(folder, (SIZE, SIZE), shuffle=False, batch_size=1, class_mode=None)
    for index, photo in enumerate(photos(folder)):
        assert np.abs(resized(photo, "keras-generator") - data[index][0]).max() <= 1, photo


def test_like_teachable_machine_is_the_code_beside_its_download(folder: Path) -> None:
    for photo in photos(folder):
        theirs = ImageOps.fit(Image.open(photo).convert("RGB"), (SIZE, SIZE), Image.Resampling.LANCZOS)
        assert np.abs(resized(photo, "teachable-machine") - np.asarray(theirs)).max() <= 1, photo


def test_like_torchvision_is_the_definition_of_its_presets(folder: Path) -> None:
    """Source: torchvision.transforms.functional, `_compute_resized_output_size` and `center_crop` on a PIL image."""
    for photo in photos(folder):
        picture = Image.open(photo).convert("RGB")
        width, height = picture.size
        short, long = min(width, height), max(width, height)
        new_long = int(256 * long / short)
        size = (256, new_long) if width <= height else (new_long, 256)
        left, top = round((size[0] - SIZE) / 2.0), round((size[1] - SIZE) / 2.0)
        theirs = picture.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + SIZE, top + SIZE))
        assert np.abs(resized(photo, "torchvision") - np.asarray(theirs)).max() <= 1, photo


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="torchvision is not installed")
def test_like_torchvision_is_torchvision(folder: Path) -> None:
    from torchvision.transforms._presets import ImageClassification  # type: ignore[import-not-found]

    preset = ImageClassification(crop_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
    for photo in photos(folder):
        theirs = preset(Image.open(photo).convert("RGB")).numpy().transpose(1, 2, 0) * 255
        assert np.abs(resized(photo, "torchvision") - theirs).max() <= 1, photo


@pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
def test_like_timm_is_timm(folder: Path) -> None:
    from timm.data import create_transform  # type: ignore[import-not-found]

    transform = create_transform(SIZE, interpolation="bicubic", crop_pct=0.875, mean=(0, 0, 0), std=(1, 1, 1))
    for photo in photos(folder):
        theirs = transform(Image.open(photo).convert("RGB")).numpy().transpose(1, 2, 0) * 255
        assert np.abs(resized(photo, "timm") - theirs).max() <= 1, photo


def test_like_timm_takes_256_for_224_and_bicubic() -> None:
    preprocessing = preprocessing_of(Layout(SIZE, SIZE, "rgb"), options(like="timm"))
    assert (preprocessing.resize_short_side, preprocessing.interpolation) == (256, "bicubic")
    assert preprocessing_of(Layout(300, 300, "rgb"), options(like="timm")).resize_short_side == 342


def test_an_option_replaces_that_part_of_the_preset() -> None:
    chosen = preprocessing_of(Layout(SIZE, SIZE, "rgb"), options(like="torchvision", resize_short_side=232))
    assert (chosen.fit, chosen.resize_short_side, chosen.interpolation) == ("crop", 232, "bilinear")
    stretched = preprocessing_of(Layout(SIZE, SIZE, "rgb"), options(like="torchvision", fit="stretch"))
    assert stretched.resize_short_side is None
    assert not preprocessing_of(Layout(SIZE, SIZE, "rgb"), options(antialias=False)).antialias


def test_options_that_do_not_go_together_are_refused() -> None:
    for given in (
        {"fit": "stretch", "resize_short_side": 256},
        {"interpolation": "lanczos", "antialias": False},
        {"like": "teachable-machine", "antialias": False},
        {"resize_short_side": 100},
    ):
        with pytest.raises(UsageError, match="cannot be done"):
            preprocessing_of(Layout(SIZE, SIZE, "rgb"), options(**given))


def test_every_preset_has_a_test() -> None:
    source = Path(__file__).read_text()
    assert all(f"def test_like_{name.replace('-', '_')}_is_" in source for name in LIKE)
