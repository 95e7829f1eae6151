"""The tolerance that suits a gallery, on distances that can be computed by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UsageError
from serving.faces.galleries.gallery import Entry
from serving.faces.galleries.tolerance_advice import advise, histogram


def entry(person: str, *numbers: float, photo: bytes | None = None) -> Entry:
    vector = np.zeros(128, np.float32)
    vector[: len(numbers)] = numbers
    return Entry(person, vector, f"{person}{numbers}", {"side": 100.0}, photo)


# On a line: ada at 0 and 0.2, bob at 1 and 1.1, eve at 1.6.
LINE = [entry("ada", 0), entry("ada", 0.2), entry("bob", 1), entry("bob", 1.1), entry("eve", 1.6)]


def test_every_photo_is_held_against_all_others() -> None:
    advice = advise(LINE, 0.2)
    assert (advice.people, advice.photos) == (3, 5)
    assert advice.same == pytest.approx([0.1, 0.1, 0.2, 0.2], abs=1e-6)
    assert advice.other == pytest.approx([0.5, 0.5, 0.6, 0.8, 1.0], abs=1e-6)


def test_tolerance_keeps_to_the_wanted_rate() -> None:
    assert advise(LINE, 0.0).tolerance == pytest.approx(0.499, abs=0.0011)
    assert advise(LINE, 0.4).tolerance == pytest.approx(0.599, abs=0.0011)
    assert advise(LINE, 0.6).tolerance == pytest.approx(0.799, abs=0.0011)
    assert advise(LINE, 0.0).missed == 0
    close = advise([*LINE, entry("eve", 1.2)], 0.0)
    assert close.tolerance == pytest.approx(0.099, abs=0.0011)
    assert close.missed == pytest.approx(1.0)


def test_few_photos_do_not_raise_the_usual_tolerance() -> None:
    far = [entry("ada", 0), entry("bob", 0.9)]
    assert advise(far, 0.001).tolerance == 0.6
    assert advise(far, 0.001).missed is None


def test_confusable_pairs_are_the_nearest_persons() -> None:
    pairs = [(pair.one, pair.other, round(pair.distance, 3)) for pair in advise(LINE, 0.1).confusable]
    assert pairs == [("bob", "eve", 0.5), ("ada", "bob", 0.8), ("ada", "eve", 1.4)]


def test_many_photos_agree_with_the_plain_formula() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(0, 0.1, (1200, 128)).astype(np.float32)
    entries = [Entry(f"p{i % 40:02}", vector, str(i)) for i, vector in enumerate(vectors)]
    advice = advise(entries, 0.1)
    owners = np.arange(1200) % 40
    first = np.linalg.norm(vectors.astype(float) - vectors[0], axis=1)
    assert np.isclose(advice.other, first[owners != 0].min(), atol=1e-9).any()
    assert advice.tolerance < np.quantile(advice.other, 0.1) + 0.001


def test_one_person_is_not_enough() -> None:
    with pytest.raises(UsageError, match="holds 1"):
        advise([entry("ada", 0)], 0.1)


def test_histogram_is_a_picture() -> None:
    image = Image.open(io.BytesIO(histogram(advise(LINE, 0.1))))
    assert (image.format, image.size) == ("PNG", (800, 400))
    colors = {color for _, color in image.convert("RGB").getcolors(100_000) or []}
    assert {(46, 160, 67), (207, 34, 46)} <= colors
