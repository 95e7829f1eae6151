"""The images install the versions that are tested."""

import re

import pytest

from tests.docker.image import ROOT


def locked(name: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+", (ROOT / "locks" / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["gateway.txt", "gateway-faces.txt", "model-server.txt"])
def test_an_images_versions_are_those_of_the_development_lock(name: str) -> None:
    assert locked(name) <= locked("dev.txt") | locked("serve.txt")


def test_the_image_with_faces_has_all_that_the_plain_one_has() -> None:
    assert locked("gateway.txt") <= locked("gateway-faces.txt")
