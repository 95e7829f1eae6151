"""The report's HTML, from numbers that one can count by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.report.document import confusion_matrix, document, headline, percent
from export.report.numbers import ReportData, restore, store
from serving.contract.card import Class
from tests.browser import Browser, chromium, in_chromium
from tests.cards import COLORS

PICTURE = np.full((8, 8, 3), 200, np.uint8)
NOTHING = ReportData(
    {}, {}, [], "", (), np.zeros((0, 3), np.float32), np.zeros(0, np.int64), [], [PICTURE], [PICTURE]
)  # as of an adopted model


def measured(truth: list[int], guesses: list[int], classes: int) -> ReportData:
    probabilities = np.eye(classes, dtype=np.float32)[guesses]
    return replace(NOTHING, probabilities=probabilities, truth=np.array(truth))


def test_the_headline_counts_the_right_answers() -> None:
    data = measured([0] * 47 + [1] * 3, [0] * 50, 3)
    assert headline(COLORS, data) == "94 %: 47 of 50 images that the model had not seen."


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(47, 50, "94 %"), (199, 200, "99.5 %"), (9999, 10000, "99.99 %"), (50, 50, "100 %"), (1, 3000, "0.03 %")],
)
def test_only_all_of_the_images_are_100_percent(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_an_adopted_model_shows_what_it_was_told_and_what_it_says_of_the_examples() -> None:
    data = replace(NOTHING, answers=[[("red", 0.71), ("green", 0.29)]], told={"scaling of the pixels": "unit: 0 to 1"})
    text = document(COLORS, data, [])
    assert headline(COLORS, data) == "3 classes, not measured here. Check what it says of the examples."
    order = [text.index(each) for each in ("headline", "says of the examples", "was told", "becomes its input")]
    assert order == sorted(order)
    assert "<b>red</b> 71.0%" in text
    assert "unit: 0 to 1" in text
    assert "bilinear, with antialias" in text


def test_the_confusion_matrix_has_numbers_and_names() -> None:
    data = measured([0, 0, 0, 1], [0, 0, 1, 1], 3)
    assert confusion_matrix(data, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    text = document(COLORS, data, [])
    assert '<th scope=row>red<td class=diagonal style="--share:26%">2<td style="--share:13%">1' in text


def test_a_large_confusion_matrix_becomes_its_largest_counts() -> None:
    card = replace(COLORS, labels=tuple(Class(str(i), f"class {i}") for i in range(40)))
    text = document(card, measured([7, 7, 7, 8], [9, 9, 7, 8], 40), [])
    assert "<td>class 7<td>class 9<td class=number>2 of 3" in text
    assert "class=matrix" not in text


def test_labels_are_text_and_no_html() -> None:
    card = replace(COLORS, labels=(Class("x", "<script>"), *COLORS.labels[1:]))
    assert "<script>" not in document(card, measured([0, 1], [1, 0], 3), [])


def test_the_numbers_are_stored_with_the_answers(tmp_path: Path) -> None:
    data = replace(NOTHING, answers=[[("red", 0.5)]], told={"fit": "crop"})
    store(tmp_path, data)
    again = restore(tmp_path)
    assert again.told == {"fit": "crop"}
    assert [tuple(answer) for answer in again.answers[0]] == [("red", 0.5)]


@in_chromium
@pytest.mark.integration
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_can_be_read_on_a_phone(tmp_path: Path, dark: bool) -> None:
    page = tmp_path / "index.html"
    data = replace(measured([0, 1, 2, 2], [0, 1, 2, 1], 3), answers=[[("red", 0.7)]])
    page.write_text(document(COLORS, data, []))
    with chromium(tmp_path) as browser:
        check(browser, page, dark)


def check(browser: Browser, page: Path, dark: bool) -> None:
    browser.emulate(390, dark=dark)
    browser.call("POST", "/url", {"url": page.as_uri()})
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.text(".headline") == "75 %: 3 of 4 images that the model had not seen."
    assert browser.violations() == []
