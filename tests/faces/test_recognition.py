"""Photos to names, with real dlib and real photos."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from serving.contract.errors import (
    EncoderMismatch,
    FaceProcessDied,
    InvalidParameter,
    NoFace,
    NotAnImage,
    UnknownGallery,
)
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.weights import import_face_recognition
from serving.faces.enrolment import Standards, Verdict, enrol, enrol_folder, named_files
from serving.faces.face import Box, Detection, DetectorModel
from serving.faces.galleries.gallery import Entry, Person
from serving.faces.recognition import FaceFinder, Faces, compare, identify
from serving.faces.service.pool import FacePool

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


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def portrait(photos: Path) -> Image.Image:
    return Image.open(photos / "known" / "obama.jpg").convert("RGB")


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    width = min(one.right, other.right) - max(one.left, other.left)
    shared = max(0, height) * max(0, width)
    areas = sum((box.bottom - box.top) * (box.right - box.left) for box in (one, other))
    return shared / (areas - shared)


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


def test_numbers_are_face_recognitions_own(pool: FacePool, photos: Path) -> None:
    """On the same pixels: a photo that is not scaled, decoded by us, who heed its colour profile."""
    face_recognition = import_face_recognition()
    data = (photos / "known" / "lin-manuel_miranda.png").read_bytes()
    pixels = decode_image(data, ImageLimits())
    (location,) = face_recognition.face_locations(pixels, number_of_times_to_upsample=0)
    (expected,) = face_recognition.face_encodings(pixels, [location], model="small")
    (face,) = pool.find(data).faces
    assert (face.box.top, face.box.right, face.box.bottom, face.box.left) == location
    assert pool.encode(face.chip[None])[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_exif_orientation_is_honoured_before_looking(pool: FacePool, photos: Path, orientation: int) -> None:
    upright = portrait(photos)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pool.find(encoded(stored, "JPEG", exif=exif, quality=95))
    assert found.tried == ("upright",)
    assert (found.width, found.height) == upright.size
    assert overlap(found.faces[0].box, Box(134, 616, 388, 361)) > 0.8


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_photo_is_found_and_boxed_where_it_lies(pool: FacePool, photos: Path, degrees: int) -> None:
    turned = portrait(photos).rotate(degrees, expand=True)
    found = pool.find(encoded(turned))
    (face,) = found.faces
    assert found.tried[-1] == f"turned by {360 - degrees} degrees"
    cut = turned.crop((face.box.left, face.box.top, face.box.right, face.box.bottom)).rotate(-degrees, expand=True)
    upright = pool.find(encoded(portrait(photos))).faces[0].box
    there = portrait(photos).crop((upright.left, upright.top, upright.right, upright.bottom)).resize(cut.size)
    assert np.abs(np.asarray(cut, float) - np.asarray(there, float)).mean() < 20
    assert np.linalg.norm(pool.encode(face.chip[None]) - encoding(pool, portrait(photos))) < 0.2


def encoding(pool: FacePool, image: Image.Image) -> np.ndarray:
    return pool.encode(pool.find(encoded(image)).chips)[0]


def test_boxes_are_in_the_pixels_of_a_large_original(pool: FacePool, photos: Path) -> None:
    large = portrait(photos).resize((3640, 4548))
    found = pool.find(encoded(large, "JPEG", quality=90))
    assert (found.width, found.height) == (3640, 4548)
    assert overlap(found.faces[0].box, Box(4 * 134, 4 * 616, 4 * 388, 4 * 361)) > 0.8


def test_small_face_is_found_at_a_larger_scale(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (1600, 1200), (90, 110, 130))
    frame.paste(portrait(photos).resize((200, 250)), (900, 500))
    found = pool.find(encoded(frame, "JPEG"))
    assert found.tried[:2] == ("upright", "upright, double size")
    assert len(found.faces) == 1
    assert 900 < found.faces[0].box.left < found.faces[0].box.right < 1100


def test_passer_by_beside_a_large_portrait_is_found(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (4000, 3000), (90, 110, 130))
    frame.paste(portrait(photos).resize((2400, 3000)), (0, 0))
    little = Image.open(photos / "unknown" / "rose_leslie2.jpg").convert("RGB")
    frame.paste(little.resize((577, 880)), (3200, 1000))
    found = pool.find(encoded(frame, "JPEG"))
    assert found.tried[:2] == ("upright", "upright, double size")
    assert [face.box.left > 3200 for face in found.faces] == [False, True]


def test_little_face_in_a_very_large_photo_is_found_at_full_size(pool: FacePool, photos: Path) -> None:
    frame = Image.new("RGB", (5600, 1400), (90, 110, 130))
    frame.paste(portrait(photos).resize((364, 455)), (4000, 500))
    found = pool.find(encoded(frame, "JPEG"))
    assert len(found.faces) == 1
    assert 4000 < found.faces[0].box.left < 4364


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


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA"])
def test_every_kind_of_pixel_can_be_encoded(pool: FacePool, photos: Path, mode: str) -> None:
    picture = encoded(portrait(photos).convert(mode), "TIFF")
    assert len(pool.find(picture).faces) == 1


def test_not_a_picture_keeps_its_error_across_the_process(pool: FacePool) -> None:
    with pytest.raises(NotAnImage, match="not a picture"):
        pool.find(b"hello")


def test_cnn_finds_the_same_face(pool: FacePool, photos: Path) -> None:
    small = encoded(portrait(photos).resize((364, 455)))
    (by_hog,), (by_cnn,) = pool.find(small).faces, pool.find(small, "cnn", retry=False).faces
    assert overlap(by_hog.box, by_cnn.box) > 0.5


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


class DiesOf:
    """A finder whose processes end over one photo."""

    def __init__(self, finder: FaceFinder, deadly: bytes) -> None:
        self._finder, self._deadly = finder, deadly

    def find(self, data: bytes, model: DetectorModel = "hog", *, retry: bool = True) -> Detection:
        if data == self._deadly:
            raise FaceProcessDied("2 face processes ended over this photo")
        return self._finder.find(data, model, retry=retry)


def test_photo_that_ends_face_processes_does_not_end_a_folder(faces: Faces, photos: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    people.mkdir()
    (people / "deadly.jpg").write_bytes(b"deadly")
    shutil.copy(photos / "known" / "obama.jpg", people / "obama.jpg")
    wary = Faces(DiesOf(faces.finder, b"deadly"), faces.encoder, faces.store)
    first, second = enrol_folder(wary, named_files(people))
    assert isinstance(first.outcome, FaceProcessDied)
    assert isinstance(second.outcome, Verdict)
    assert second.outcome.stored


# ---- the coach


def reasons(faces: Faces, image: Image.Image, person: str = "obama") -> set[str]:
    return {reason.code for reason in enrol(faces, person, encoded(image)).reasons}


def test_good_photo_is_stored_with_its_quality(faces: Faces, photos: Path) -> None:
    verdict = enrol(faces, "obama", encoded(portrait(photos)), expires="2999-01-01")
    assert verdict.is_accepted
    assert verdict.stored
    assert faces.store.people("default") == [Person("obama", 1, "2999-01-01")]


def test_same_photo_twice_is_accepted_and_not_stored(faces: Faces, photos: Path) -> None:
    enrol(faces, "obama", encoded(portrait(photos)))
    again = enrol(faces, "obama", encoded(portrait(photos)))
    assert (again.is_accepted, again.stored) == (True, False)
    assert faces.store.count("default") == 1


def test_poor_photos_are_refused_with_reasons(faces: Faces, photos: Path) -> None:
    image = portrait(photos)
    assert reasons(faces, Image.new("RGB", (200, 200))) == {"no_face"}
    assert reasons(faces, image.resize((120, 150))) == {"too_small"}
    assert reasons(faces, image.filter(ImageFilter.GaussianBlur(8))) == {"blurred"}
    assert reasons(faces, image.point(lambda value: value // 8)) == {"dark"}
    two = Image.new("RGB", (2 * image.width, image.height))
    two.paste(image, (0, 0))
    two.paste(image, (image.width, 0))
    assert reasons(faces, two) == {"several_faces"}
    assert faces.store.count("default") == 0


def test_refusal_tells_the_measurement_and_the_threshold(faces: Faces, photos: Path) -> None:
    (reason,) = enrol(faces, "obama", encoded(portrait(photos).resize((120, 150)))).reasons
    assert reason.limit == Standards().side
    assert reason.measured is not None
    assert reason.measured < 60
    assert "come closer" in reason.text


def test_turned_head_is_refused(faces: Faces, photos: Path) -> None:
    verdict = enrol(faces, "obama", encoded(portrait(photos)), standards=Standards(turn=0.001))
    assert [reason.code for reason in verdict.reasons] == ["turned_away"]


def test_face_of_somebody_else_is_refused(known: Faces, photos: Path) -> None:
    again = Image.open(photos / "unknown" / "obama2.jpg")
    assert reasons(known, again, "barack") == {"looks_like_someone_else"}
    assert enrol(known, "barack", (photos / "known" / "obama.jpg").read_bytes()).reasons[0].code == "duplicate"


def test_reasons_can_be_waived_but_for_the_face_itself(known: Faces, photos: Path) -> None:
    again = (photos / "unknown" / "obama2.jpg").read_bytes()
    twins = Standards(allowed=frozenset({"looks_like_someone_else", "no_face"}))
    assert enrol(known, "barack", again, standards=twins).stored
    assert not enrol(known, "barack", encoded(Image.new("RGB", (200, 200))), standards=twins).is_accepted


def test_replacing_waits_for_a_photo_that_is_accepted(known: Faces, photos: Path) -> None:
    enrol(known, "obama", encoded(Image.new("RGB", (200, 200))), replace=True)
    assert known.store.count("default") == 5
    assert enrol(known, "obama", (photos / "unknown" / "obama2.jpg").read_bytes(), replace=True).stored
    assert known.store.count("default") == 5
