"""The promises of every store. To test a new store, add a row to `open_anew`."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.contract.errors import (
    EncoderMismatch,
    GalleryUnavailable,
    InvalidName,
    InvalidParameter,
    UnknownGallery,
    UnknownPerson,
    UsageError,
)
from serving.faces.galleries.encryption import cipher_for
from serving.faces.galleries.gallery import Archive, Candidate, Entry, GalleryInfo, Person, audit_digest
from serving.faces.galleries.sqlite_store import SqliteStore
from serving.faces.galleries.stores import missing_file, open_for_reading, open_store

ENCODER = "dlib@1"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

OpenStore = Callable[[], Archive]


@pytest.fixture(params=["sqlite", "sqlite, encrypted", pytest.param("postgres", marks=pytest.mark.integration)])
def open_anew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the same galleries again and again, as several processes do."""
    opened: list[Archive] = []
    if request.param == "postgres":
        url, key = request.getfixturevalue("postgres_url"), ""
    else:
        url, key = f"sqlite:///{tmp_path}/faces.db", KEY if "encrypted" in request.param else ""

    def open_one() -> Archive:
        opened.append(open_store(url, key))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def store(open_anew: OpenStore) -> Archive:
    return open_anew()


def vector(*numbers: float) -> np.ndarray:
    """An encoding whose first numbers are given, and the others 0."""
    return np.asarray([*numbers, *[0.0] * (128 - len(numbers))], np.float32)


def entry(person: str, *numbers: float, photo: str = "") -> Entry:
    return Entry(person, vector(*numbers), photo or f"{person}{numbers}", {"side": 100.0})


def nearest(store: Archive, *numbers: float, k: int = 5, gallery: str = "default") -> Sequence[Candidate]:
    return store.nearest(gallery, vector(*numbers)[None], k, encoder=ENCODER)[0]


def names(store: Archive, gallery: str = "default") -> list[str]:
    return [person.name for person in store.people(gallery)]


def test_default_gallery_is_empty_before_anybody_is_enrolled(store: Archive) -> None:
    assert store.people("default") == []
    assert store.count("default") == 0
    assert nearest(store, 1) == []
    assert store.galleries() == []


def test_nearest_persons_come_first_with_their_distances(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0), entry("bob", 3, 4), entry("eve", 1)], encoder=ENCODER)
    found = nearest(store, 0)
    assert [candidate.name for candidate in found] == ["ada", "eve", "bob"]
    assert [candidate.distance for candidate in found] == pytest.approx([0, 1, 5], abs=1e-6)


def test_person_with_many_photos_is_one_candidate_at_the_nearest(store: Archive) -> None:
    store.enrol("default", [entry("ada", n) for n in range(200)] + [entry("bob", 500)], encoder=ENCODER)
    assert nearest(store, 0, k=2) == [Candidate("ada", 0.0), Candidate("bob", 500.0)]


def test_every_query_has_its_own_answer(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0), entry("bob", 9)], encoder=ENCODER)
    found = store.nearest("default", np.stack([vector(1), vector(8)]), 1, encoder=ENCODER)
    assert [row[0].name for row in found] == ["ada", "bob"]
    assert store.nearest("default", np.zeros((0, 128), np.float32), 1, encoder=ENCODER) == []


def test_same_photo_twice_is_one(store: Archive) -> None:
    assert store.enrol("default", [entry("ada", 0, photo="a"), entry("ada", 0, photo="a")], encoder=ENCODER) == 1
    assert store.enrol("default", [entry("ada", 0, photo="a")], encoder=ENCODER) == 0
    assert store.people("default") == [Person("ada", 1, "")]
    assert store.owner("default", "a") == "ada"
    assert store.owner("default", "b") is None


def test_replacing_forgets_what_was_known(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0), entry("bob", 5)], encoder=ENCODER)
    store.enrol("default", [entry("ada", 10)], encoder=ENCODER, replace=True)
    assert nearest(store, 0) == [Candidate("bob", 5.0), Candidate("ada", 10.0)]


def test_forgotten_person_is_gone(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0), entry("ada", 1), entry("bob", 5)], encoder=ENCODER)
    assert nearest(store, 0)[0].name == "ada"
    assert store.forget("default", "ada") == 2
    assert nearest(store, 0) == [Candidate("bob", 5.0)]
    assert names(store) == ["bob"]
    with pytest.raises(UnknownPerson, match="ada"):
        store.forget("default", "ada")


def test_nobody_can_be_forgotten_before_anybody_is_enrolled(store: Archive) -> None:
    with pytest.raises(UnknownPerson, match="'ada'"):
        store.forget("default", "ada")


def test_another_process_sees_changes_at_its_next_call(open_anew: OpenStore) -> None:
    one, other = open_anew(), open_anew()
    assert nearest(other, 0) == []
    one.enrol("default", [entry("ada", 0)], encoder=ENCODER)
    assert nearest(other, 0) == [Candidate("ada", 0.0)]
    one.enrol("default", [entry("ada", 2)], encoder=ENCODER, replace=True)
    assert nearest(other, 0) == [Candidate("ada", 2.0)]
    other.forget("default", "ada")
    assert nearest(one, 0) == []
    one.drop("default")
    assert nearest(other, 0) == []


def test_everything_is_there_after_reopening(open_anew: OpenStore) -> None:
    first = open_anew()
    first.enrol(
        "default", [Entry("ada", vector(1), "abc", {"side": 7.5}, b"photo")], encoder=ENCODER, expires="2999-01-01"
    )
    first.close()
    second = open_anew()
    assert second.people("default") == [Person("ada", 1, "2999-01-01")]
    (found,) = second.entries("default")
    assert (found.person, found.photo_sha256, found.quality, found.photo) == ("ada", "abc", {"side": 7.5}, b"photo")
    assert np.array_equal(found.encoding, vector(1))


def test_float32_returns_bit_for_bit(store: Archive) -> None:
    rough = np.random.default_rng(1).normal(0, 0.1, 128).astype(np.float32)
    store.enrol("default", [Entry("ada", rough, "a")], encoder=ENCODER)
    (found,) = store.entries("default")
    assert np.array_equal(found.encoding, rough)


def test_galleries_do_not_mix(store: Archive) -> None:
    store.enrol("staff", [entry("ada", 0)], encoder=ENCODER)
    store.enrol("guests", [entry("bob", 0)], encoder=ENCODER)
    assert nearest(store, 0, gallery="staff") == [Candidate("ada", 0.0)]
    assert nearest(store, 0, gallery="guests") == [Candidate("bob", 0.0)]
    assert store.galleries() == [GalleryInfo("guests", ENCODER, 1, 1), GalleryInfo("staff", ENCODER, 1, 1)]
    assert store.drop("staff") == 1
    with pytest.raises(UnknownGallery, match="staff"):
        nearest(store, 0, gallery="staff")


@pytest.mark.parametrize("call", ["people", "count", "drop"])
def test_unknown_gallery_is_named(store: Archive, call: str) -> None:
    with pytest.raises(UnknownGallery, match="'nowhere'"):
        getattr(store, call)("nowhere")


def test_another_encoders_vectors_are_refused(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0)], encoder=ENCODER)
    with pytest.raises(EncoderMismatch, match=r"dlib@1.*dlib@2"):
        store.enrol("default", [entry("bob", 0)], encoder="dlib@2")
    with pytest.raises(EncoderMismatch, match="Enrol the photos again"):
        store.nearest("default", vector(0)[None], 1, encoder="dlib@2")
    assert names(store) == ["ada"]


def test_gallery_that_was_emptied_takes_a_new_encoder(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0)], encoder=ENCODER)
    store.forget("default", "ada")
    store.enrol("default", [entry("ada", 0)], encoder="dlib@2")
    assert store.galleries()[0].encoder == "dlib@2"


@pytest.mark.parametrize("name", ["", "  ", "a/b", "..", "a\\b", "x" * 101, "a\nb", "a\0b"])
def test_names_that_are_no_names_are_refused(store: Archive, name: str) -> None:
    with pytest.raises(InvalidName):
        store.enrol("default", [entry(name, 0)], encoder=ENCODER)
    assert store.count("default") == 0


@pytest.mark.parametrize("name", ["", "Staff", "../x", "a b", "x" * 64])
def test_gallery_names_that_are_none_are_refused(store: Archive, name: str) -> None:
    with pytest.raises(InvalidName):
        store.enrol(name, [entry("ada", 0)], encoder=ENCODER)


def test_names_of_people_keep_their_letters(store: Archive) -> None:
    store.enrol("default", [entry("  Jose\u0301 Ñandú ", 0)], encoder=ENCODER)
    assert names(store) == ["José Ñandú"]
    assert store.forget("default", "José Ñandú") == 1


def test_failed_enrolment_leaves_nothing(store: Archive) -> None:
    with pytest.raises(InvalidName):
        store.enrol("default", [entry("ada", 0), entry("", 1)], encoder=ENCODER)
    with pytest.raises(ValueError, match="finite"):
        store.enrol("default", [entry("ada", 0), entry("bob", float("nan"))], encoder=ENCODER)
    assert store.galleries() == []


def test_expired_persons_are_forgotten_and_audited(open_anew: OpenStore) -> None:
    open_anew().enrol("default", [entry("ada", 0)], encoder=ENCODER, expires="2020-01-01")
    open_anew().enrol("default", [entry("bob", 1)], encoder=ENCODER, expires="2999-01-01")
    later = open_anew()
    assert nearest(later, 0) == [Candidate("bob", 1.0)]
    assert names(later) == ["bob"]
    assert ("expire", audit_digest("default", "ada")) in {(each.action, each.person) for each in later.audit()}


def test_day_that_is_none_is_refused(store: Archive) -> None:
    with pytest.raises(InvalidParameter, match="2027-12-31"):
        store.enrol("default", [entry("ada", 0)], encoder=ENCODER, expires="tomorrow")


def test_audit_tells_what_was_done_and_no_name(store: Archive) -> None:
    store.enrol("default", [entry("ada", 0), entry("ada", 1)], encoder=ENCODER)
    store.forget("default", "ada")
    records = store.audit()
    assert [(each.action, each.gallery, each.count) for each in records] == [
        ("enrol", "default", 2),
        ("forget", "default", 2),
    ]
    assert "ada" not in json.dumps([each.person for each in records])
    assert {each.person for each in records} == {audit_digest("default", "ada")}
    assert datetime.datetime.fromisoformat(records[0].at).utcoffset() == datetime.timedelta(0)


def test_threads_enrol_and_search_at_once(store: Archive) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            store.enrol("default", [entry(f"person {number}", number, turn)], encoder=ENCODER)
            assert nearest(store, number, turn)[0] == Candidate(f"person {number}", 0.0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert store.count("default") == 80


def test_search_agrees_with_the_plain_formula(store: Archive) -> None:
    rng = np.random.default_rng(7)
    known = rng.normal(0, 0.12, (300, 128)).astype(np.float32)
    store.enrol("default", [Entry(f"p{i}", row, f"s{i}") for i, row in enumerate(known)], encoder=ENCODER)
    queries = known[:20] + rng.normal(0, 0.03, (20, 128)).astype(np.float32)
    for query, found in zip(queries, store.nearest("default", queries, 7, encoder=ENCODER), strict=True):
        distances = np.linalg.norm(known.astype(np.float64) - query, axis=1)
        best = np.argsort(distances)[:7]
        assert [each.name for each in found] == [f"p{i}" for i in best]
        assert [each.distance for each in found] == pytest.approx(distances[best], abs=1e-6)


def test_reading_a_file_that_does_not_exist_makes_none_and_knows_nobody(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/faces.db"
    assert missing_file(url) == tmp_path / "new" / "faces.db"
    store = open_for_reading(url)
    assert (store.galleries(), store.people("default"), store.count("default"), store.audit()) == ([], [], 0, [])
    assert nearest(store, 1) == []
    assert store.owner("default", "x") is None
    assert list(store.entries("default")) == []
    with pytest.raises(UnknownGallery, match="'staff'"):
        store.people("staff")
    with pytest.raises(UnknownGallery, match="'default'"):
        store.drop("default")
    with pytest.raises(UnknownPerson, match="'ada'"):
        store.forget("default", "ada")
    with pytest.raises(GalleryUnavailable):
        store.enrol("default", [entry("ada", 1)], encoder=ENCODER)
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_reading_a_file_that_exists_opens_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/faces.db"
    made = open_store(url)
    made.enrol("default", [entry("ada", 1)], encoder=ENCODER)
    made.close()
    assert missing_file(url) is None
    store = open_for_reading(url)
    assert names(store) == ["ada"]
    store.close()


def test_url_that_names_no_store_is_refused() -> None:
    with pytest.raises(UsageError, match="SIGHTLINE_FACES_URL"):
        open_store("mysql://user:secret@host/db")


def test_postgres_refuses_a_key_it_could_not_honour() -> None:
    with pytest.raises(UsageError, match="cannot search"):
        open_store("postgresql://host/db", KEY)


def test_database_that_is_away_is_said_so() -> None:
    from serving.faces.galleries.postgres_store import PostgresStore

    with pytest.raises(GalleryUnavailable, match="database"):
        PostgresStore("postgresql://postgres@127.0.0.1:9/postgres", connect_seconds=0.3)


def test_key_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="openssl rand -base64 32"):
        cipher_for("c2hvcnQ=")


def test_store_can_be_substituted(tmp_path: Path) -> None:
    store: Archive = SqliteStore(tmp_path / "faces.db")
    store.close()
