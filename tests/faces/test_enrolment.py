"""Photos that are judged and enrolled, with real dlib and real photos."""

import shutil
from pathlib import Path

from PIL import Image, ImageFilter

from clients.face_answers import named_files
from serving.contract.errors import FaceProcessDied
from serving.faces.enrolment import Standards, Verdict, enrol, enrol_folder
from serving.faces.face import Detection, DetectorModel
from serving.faces.galleries.gallery import Person
from serving.faces.recognition import FaceFinder, Faces
from tests.faces.pictures import encoded, portrait


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
