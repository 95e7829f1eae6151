"""Photos to names, with real dlib and real photos."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from serving.contract.errors import EncoderMismatch, InvalidParameter, NoFace, UnknownGallery
from serving.faces.galleries.gallery import Entry
from serving.faces.recognition import Faces, compare, identify
from tests.faces.pictures import encoded, portrait

# What data/README.md says of unknown/.
WHO = {
    "alex_lacamoire2.jpg": {"alex_lacamoire"},
    "biden2.jpg": {"biden"},
    "obama2.jpg": {"obama"},
    "obama_240p.jpg": {"obama"},
    "obama_and_biden.jpg": {"obama", "biden", None},
    "rose_leslie2.jpg": {"rose_leslie"},
    "stranger_johnsnow.jpg": {None},
    "two_people.jpg": {"obama", "biden"},
}


@pytest.mark.parametrize("name", WHO)
def test_unknown_photos_are_answered_as_their_readme_says(known: Faces, photos: Path, name: str) -> None:
    answer = identify(known, (photos / "unknown" / name).read_bytes())
    assert [match.name for match in answer.matches].count(None) == (None in WHO[name])
    assert {match.name for match in answer.matches} == WHO[name]
    assert answer.known == 5
    sides = [match.face.box.side for match in answer.matches]
    assert sides == sorted(sides, reverse=True)


def test_candidates_are_given_beyond_the_tolerance_too(known: Faces, photos: Path) -> None:
    (match,) = identify(known, (photos / "unknown" / "stranger_johnsnow.jpg").read_bytes(), candidates=3).matches
    assert match.name is None
    assert len(match.candidates) == 3
    assert 0.6 < match.candidates[0].distance <= match.candidates[1].distance


def as_somebody(faces: Faces, photo: bytes) -> None:
    """Enrol the very encoding of a photo's face, past all judgement: it is as near as can be."""
    encoding = faces.encoder.encode(faces.finder.find(photo).chips)[0]
    faces.store.enrol("default", [Entry("somebody", encoding, "x")], encoder=str(faces.encoder.name))


@pytest.mark.parametrize(("code", "setting"), [("too_small", "min_side"), ("blurred", "min_sharpness")])
def test_face_that_cannot_be_told_apart_is_not_named(faces: Faces, photos: Path, code: str, setting: str) -> None:
    image = portrait(photos)
    poor = {
        "too_small": image.resize((image.width // 14, image.height // 14)),  # a face of about 18 pixels
        "blurred": image.filter(ImageFilter.GaussianBlur(10)),
    }[code]
    scene = Image.new("RGB", (800, 800), (96, 110, 124))
    scene.paste(poor, (100, 50))
    as_somebody(faces, encoded(scene))
    (match,) = identify(faces, encoded(scene)).matches
    assert match.name is None
    assert [reason.code for reason in match.reasons] == [code]
    assert (match.candidates[0].name, match.distance) == ("somebody", pytest.approx(0, abs=1e-6))
    trusting = dataclasses.replace(faces, **{setting: 0})
    assert identify(trusting, encoded(scene)).matches[0].name == "somebody"


def test_picture_without_a_face_is_an_empty_answer_that_says_what_was_tried(known: Faces) -> None:
    answer = identify(known, encoded(Image.new("RGB", (300, 200), "teal")))
    assert answer.matches == ()
    assert answer.found.tried == (
        "upright",
        "upright, double size",
        "turned by 90 degrees",
        "turned by 270 degrees",
        "turned by 180 degrees",
        "upright, four times the size",
    )


def test_two_photos_of_one_person_are_the_same(faces: Faces, photos: Path) -> None:
    one, other = (photos / "known" / "obama.jpg").read_bytes(), (photos / "unknown" / "obama2.jpg").read_bytes()
    answer = compare(faces, one, other)
    assert answer.is_same
    assert answer.distance == pytest.approx(0.36, abs=0.05)
    assert not compare(faces, one, (photos / "known" / "biden.jpg").read_bytes()).is_same


def test_comparing_names_the_photo_without_a_face(faces: Faces, photos: Path) -> None:
    blank = encoded(Image.new("RGB", (300, 200)))
    with pytest.raises(NoFace, match=r"the second photo \(300 x 200"):
        compare(faces, (photos / "known" / "obama.jpg").read_bytes(), blank)


@pytest.mark.parametrize("tolerance", [0, -1, 2.1, float("nan")])
def test_tolerance_that_is_none_is_refused(faces: Faces, tolerance: float) -> None:
    with pytest.raises(InvalidParameter, match="tolerance"):
        identify(faces, b"", tolerance=tolerance)


def test_unknown_gallery_costs_no_look_at_the_photo(faces: Faces) -> None:
    with pytest.raises(UnknownGallery):
        identify(faces, b"not even a picture", gallery="nowhere")


def test_gallery_of_another_encoder_asks_for_enrolment(faces: Faces, photos: Path) -> None:
    faces.store.enrol("default", [Entry("ada", np.zeros(128, np.float32), "x")], encoder="other@1")
    with pytest.raises(EncoderMismatch, match="Enrol the photos again"):
        identify(faces, (photos / "known" / "obama.jpg").read_bytes())
