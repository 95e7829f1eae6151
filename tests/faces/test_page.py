"""The faces on the page, in a real Chromium with real dlib."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.browser import Browser, chromium, in_chromium, served
from tests.gateway.conftest import ColorPredictor

if TYPE_CHECKING:
    from serving.faces.recognition import Faces

pytestmark = pytest.mark.integration


@pytest.fixture
def browser(faces: "Faces", tmp_path: Path) -> Iterator[Browser]:
    """A browser that shows the faces of a service that knows nobody."""
    with served(create_app(Settings(), ColorPredictor(), faces)) as url, chromium(tmp_path) as browser:
        browser.call("POST", "/url", {"url": url})
        browser.wait_for(lambda: browser.run("return document.getElementById('card').childElementCount") > 0)
        browser.click("#to-faces")
        browser.wait_for(lambda: browser.text("#people-state") == "Nobody yet.")
        yield browser


@in_chromium
def test_a_person_is_added_with_consent_recognized_and_forgotten(browser: Browser, photos: Path) -> None:
    browser.emulate(390)
    browser.keys("#person", "Barack Obama")
    browser.keys("#person-files", str(photos / "known" / "obama.jpg"))
    browser.click("#enrol-form button")
    assert browser.run("return document.querySelector('#consent:invalid') !== null")  # nothing is sent
    assert browser.text("#people") == ""
    browser.click("#consent")
    browser.click("#enrol-form button")
    browser.wait_for(lambda: browser.text("#face-state") == "Barack Obama is known by 1 photo of 1.")
    assert "Barack Obama 1 photo" in browser.text("#people")

    browser.keys("#identify-file", str(photos / "unknown" / "two_people.jpg"))
    browser.wait_for(lambda: browser.text("#face-state") == "2 faces: unknown, Barack Obama.")
    boxes = browser.run("return document.querySelectorAll('.framed rect:not(.unknown)').length")
    names = browser.run("return [...document.querySelectorAll('.framed text')].map(each => each.textContent)")
    assert boxes == 1
    assert names == ["unknown", "Barack Obama"]
    inside = """
        const box = document.querySelector('.framed rect').getBoundingClientRect();
        const photo = document.querySelector('.framed img').getBoundingClientRect();
        return box.width > 10 && box.left >= photo.left && box.right <= photo.right && box.bottom <= photo.bottom"""
    browser.wait_for(lambda: browser.run(inside))
    in_view = """
        const photo = document.querySelector('.framed img').getBoundingClientRect();
        return photo.top >= 0 && photo.bottom <= innerHeight"""
    browser.wait_for(lambda: browser.run(in_view))
    assert browser.violations() == []

    browser.click("#people button")
    browser.call("POST", "/alert/accept", {})
    browser.wait_for(lambda: browser.text("#people-state") == "Barack Obama is forgotten.")
    assert browser.text("#people") == ""


@in_chromium
def test_two_photos_are_compared(browser: Browser, photos: Path) -> None:
    obama, biden = photos / "known" / "obama.jpg", photos / "known" / "biden.jpg"
    for other, verdict in ((obama, "The same person"), (biden, "Two different people")):
        browser.keys("#face-a", str(obama))
        browser.keys("#face-b", str(other))
        browser.click("#compare-form button")
        browser.wait_for(lambda verdict=verdict: browser.text("#face-state").startswith(verdict))
    assert browser.run("return document.querySelectorAll('.framed rect').length") == 2


@in_chromium
def test_a_photo_without_a_face_is_told(browser: Browser, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 200), "#888").save(tmp_path / "wall.png")
    browser.keys("#identify-file", str(tmp_path / "wall.png"))
    browser.wait_for(lambda: browser.text("#face-state") == "There is no face in this photo.")
    browser.keys("#person", "A")
    browser.keys("#person-files", str(tmp_path / "wall.png"))
    browser.click("#consent")
    browser.click("#enrol-form button")
    browser.wait_for(lambda: "bad" in browser.run("return document.getElementById('face-state').className"))
    assert "wall.png" in browser.text("#face-shown")
