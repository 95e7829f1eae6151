"""Two gateway workers over one known set: what one was told, the other knows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faces.running import FacesOverHttp, faces_over_http

pytest.importorskip("dlib")

pytestmark = pytest.mark.integration


@pytest.fixture
def service(tmp_path: Path) -> Iterator[FacesOverHttp]:
    with faces_over_http(tmp_path, f"sqlite:///{tmp_path}/faces.db", workers=2) as service:
        yield service


def identified(client: httpx.Client, photo: bytes) -> str | None:
    (face,) = client.post("/faces/identify", files={"image": photo}).raise_for_status().json()["faces"]
    name: str | None = face["name"]
    return name


def test_every_worker_sees_a_change_at_once(service: FacesOverHttp, photos: Path) -> None:
    photo = (photos / "known" / "obama.jpg").read_bytes()

    def people(_: int) -> list[str]:
        with service.client() as client:
            return [row["name"] for row in client.get("/faces/people").raise_for_status().json()["people"]]

    with service.client() as client, ThreadPoolExecutor(8) as threads:
        for name in ("obama", "barack"):
            client.post(f"/faces/people/{name}", files={"image": photo}).raise_for_status()
            assert list(threads.map(people, range(16))) == [[name]] * 16
            assert identified(client, photo) == name
            client.delete(f"/faces/people/{name}").raise_for_status()
            assert list(threads.map(people, range(16))) == [[]] * 16
            assert identified(client, photo) is None


def test_eight_clients_enrol_identify_and_forget_at_once(service: FacesOverHttp, photos: Path) -> None:
    photo = (photos / "known" / "obama.jpg").read_bytes()

    def work(number: int) -> None:
        """Each has a gallery of its own and one in common."""
        with service.client() as client:
            for gallery in (f"own-{number}", "common"):
                query = {"gallery": gallery, "allow": "looks_like_someone_else,duplicate"}
                enrolled = client.post(f"/faces/people/p{number}", params=query, files={"image": photo})
                assert enrolled.status_code == 200, enrolled.text
            answer = client.post("/faces/identify", params={"gallery": f"own-{number}"}, files={"image": photo}).json()
            assert [face["name"] for face in answer["faces"]] == [f"p{number}"]
            client.delete(f"/faces/people/p{number}", params={"gallery": f"own-{number}"}).raise_for_status()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    with service.client() as client:
        people = client.get("/faces/people", params={"gallery": "common"}).json()["people"]
        assert [row["name"] for row in people] == [f"p{number}" for number in range(8)]
