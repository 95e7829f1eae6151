"""The review page in a real Chromium: looked through, corrected, and its corrections taken as data."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from clients.batch.review import review
from clients.batch.rows import FAILED, OK, Row
from clients.batch.writers import write_rows
from tests.browser import Browser, chromium, in_chromium
from tests.clients.shades import png

pytestmark = pytest.mark.integration

SHOWN = "return [...document.querySelectorAll('figure .path')].map(each => each.textContent.split('/').pop())"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path) as browser:
        yield browser


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Four pictures in folders named for what they are, one of them wrong, and a failed one."""
    rows = []
    for name, label, score in (
        ("cat/1", "cat", 0.9),
        ("cat/2", "dog", 0.51),
        ("dog/3 ,", "dog", 0.7),
        ("dog/4", "dog", 1.0),
    ):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(100, side=40))
        label_id = f"n-{label}"
        rows.append(Row(str(path), OK, label, label_id, score, ((label, score, label_id), ("bird", 0.1, "n-bird"))))
    rows.append(Row(str(tmp_path / "gone.png"), FAILED, error_code="unreadable_file", error="no such file"))
    write_rows(str(tmp_path / "r.csv"), rows)
    done = CliRunner().invoke(review, [str(tmp_path / "r.csv"), "--out", str(tmp_path / "review.html")])
    assert done.exit_code == 0, done.output
    return tmp_path / "review.html"


def choose(browser: Browser, select: str, value: str) -> None:
    """Click an option of a select."""
    browser.click(f"{select} option[value='{value}']")


@in_chromium
def test_results_are_looked_through_corrected_and_taken_as_data(browser: Browser, page: Path) -> None:
    browser.call("POST", "/url", {"url": page.as_uri()})
    assert browser.run(SHOWN) == ["gone.png", "2.png", "3 ,.png", "1.png", "4.png"]  # failed, then least certain
    widths = "return [...document.querySelectorAll('figure img')].map(each => each.naturalWidth)"
    browser.wait_for(lambda: browser.run(widths) == [40] * 4)
    assert "unreadable_file" in browser.text("figure .error")

    assert browser.text("figure:nth-child(2) b") == "dog (n-dog)"
    assert "bird (n-bird) 0.100" in browser.text("figure:nth-child(2) figcaption")

    assert browser.text("#accuracy") == "Accuracy 75 %: 3 of 4 images whose truth is known."
    assert browser.text("figure:nth-child(2) figcaption").startswith("2.png")

    choose(browser, "#label", "dog")
    assert browser.run(SHOWN) == ["2.png", "3 ,.png", "4.png"]
    browser.click("#wrong")
    assert browser.run(SHOWN) == ["2.png"]
    browser.click("#wrong")
    choose(browser, "#label", "")

    browser.click("#matrix summary")
    assert browser.text("#matrix table").split() == ["cat", "dog", "cat", "1", "1", "dog", "2"]
    browser.click("#matrix tr:nth-child(2) td:nth-child(3)")  # the cat that was called a dog
    assert browser.run(SHOWN) == ["2.png"]

    choose(browser, "figure select", "cat")
    choose(browser, "#truth", "")
    choose(browser, "#label", "")
    choose(browser, "figure:nth-child(3) select", "bird")
    assert browser.text("#count") == "2"
    time.sleep(1)  # Chromium takes what a page stores from its process without telling when; a reload may come before
    browser.call("POST", "/refresh", {})
    browser.wait_for(lambda: browser.text("#count") == "2")  # kept by the browser, and shown once its script has run
    browser.click("#save")
    saved = page.parent / "downloads" / "corrections.csv"
    browser.wait_for(saved.exists)
    asked = browser.requested()
    assert page.as_uri() in asked
    assert [url for url in asked if url.startswith(("http", "ws"))] == []

    folders = pytest.importorskip("export.data.folders", reason="the extra `tensorflow` is not installed")
    files = folders.check_files(folders.list_files(saved), strict=True).files["train"]
    assert files == [(page.parent / "cat" / "2.png", "cat"), (page.parent / "dog" / "3 ,.png", "bird")]


@in_chromium
def test_images_are_corrected_by_number_keys(browser: Browser, page: Path) -> None:
    browser.call("POST", "/url", {"url": page.as_uri()})
    browser.run("document.querySelectorAll('figure')[1].focus()")  # the cat that was called a dog; 2: bird
    browser.keys("figure:nth-child(2)", "2")
    assert browser.run("return document.querySelectorAll('figure select')[1].value") == "bird"
    assert browser.text("#count") == "1"
    assert browser.run("return document.activeElement === document.querySelectorAll('figure')[2]")
    browser.keys("figure:nth-child(3)", "1")
    browser.keys("figure:nth-child(2)", "0")
    assert browser.run("return [...document.querySelectorAll('figure select')].map(each => each.value)") == [
        "",
        "",
        "dog",
        "",
        "",
    ]
    browser.keys("figure:nth-child(2)", "7\ue012")  # there is no seventh label; the left arrow
    assert browser.run("return document.activeElement === document.querySelectorAll('figure')[0]")
    assert browser.text("#count") == "1"


@in_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_used_without_mouse_or_screen(browser: Browser, page: Path, dark: bool) -> None:
    browser.emulate(390, dark=dark)
    browser.call("POST", "/url", {"url": page.as_uri()})
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= 390
