"""The page in a real Chromium."""

import contextlib
import csv
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from serving.backend.predictor import ANYTIME, Call, ModelRef, Scores, ServedModel
from serving.contract.card import Class, Input
from serving.contract.exports import ExportState, write_state
from serving.contract.preprocessing import Tensor
from serving.contract.sample_images import SAMPLES
from serving.gateway.access.keys import new_key
from serving.gateway.app import create_app
from serving.gateway.routes.page import PAGE, page_files
from serving.gateway.settings import Settings
from tests.browser import ELEMENT, Browser, chromium, in_chromium, served
from tests.cards import COLORS
from tests.gateway.conftest import ColorPredictor

pytestmark = pytest.mark.integration

FRAMED = replace(COLORS.preprocessing, fit="ink", color="gray", mean=(0.0,), std=(1.0,))
INK = replace(
    COLORS,
    name="ink",
    labels=(Class("i", "drawn"),),
    preprocessing=FRAMED,
    input=Input("serving_default", "image", "uint8", (None, 2, 2, 1)),
)
VISIBLE = """
    const box = document.querySelector('#answers .label').getBoundingClientRect();
    return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight"""


@dataclass
class TwoModels(ColorPredictor):
    """`colors`, with two versions, and `ink`, which says "drawn" of everything. hold: what predictions wait for."""

    hold: threading.Event | None = None
    most_out: int = 0
    out: int = 0
    versions_asked: list[int | None] = field(default_factory=list)

    def describe(self, ref: ModelRef, call: Call = ANYTIME) -> ServedModel:
        if ref.name == "ink":
            return ServedModel(ref, 1, INK)
        self.versions_asked.append(ref.version)
        return super().describe(ref, call)

    def predict(self, served: ServedModel, batch: Tensor, call: Call = ANYTIME) -> Scores:
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        if self.hold is not None:
            assert self.hold.wait(20)
        is_ink = served.ref.name == "ink"
        scores = Scores(1, np.ones((len(batch), 1))) if is_ink else super().predict(served, batch, call)
        self.out -= 1
        return scores

    def models(self) -> Any:
        return {"colors": self.versions("colors"), "empty": (), "ink": self.versions("colors")}

    def versions(self, name: str) -> Any:  # noqa: ARG002
        return super().versions("colors")


@pytest.fixture
def predictor() -> TwoModels:
    return TwoModels()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_need_nothing_from_elsewhere(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.content_type == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"\sstyle=|\son[a-z]+=|<style|<script>", response.text)  # the policy would forbid them
    for name in re.findall(r"(?:src|href)=\"([^\"]*\.\w+)\"", response.text):
        assert client.get(f"/{name}").status_code == 200


def test_no_file_of_the_page_names_another_host() -> None:
    for path in PAGE.iterdir():
        hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text()))
        assert hosts <= {"http://www.w3.org"}, path  # the name of SVG


def test_a_browser_fetches_an_unchanged_file_once(client: FlaskClient) -> None:
    for path in ("/", "/docs", *(f"/page/{name}" for name in page_files())):
        first = client.get(path)
        assert first.headers["Cache-Control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_only_the_files_of_the_page_are_served(client: FlaskClient) -> None:
    assert client.get("/page/style.css").content_type == "text/css; charset=utf-8"
    for name in ("index.html", "nothing.js", "..%2Fapp.py"):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_page_is_there_without_a_key(predictor: Any) -> None:
    settings = Settings(api_keys=new_key("a", ["predict"])[1])
    client = create_app(settings, predictor).test_client()
    for path in ("/", "/docs", "/page/classify.js", "/page/icon.svg"):
        assert client.get(path).status_code == 200


def under(prefix: str, app: Flask) -> DispatcherMiddleware:
    """Serve the application as a proxy does that takes the prefix off the path and names it in a header."""

    def proxied(environ: dict[str, Any], start_response: Any) -> Any:
        environ |= {"SCRIPT_NAME": "", "PATH_INFO": environ["PATH_INFO"] or "/", "HTTP_X_FORWARDED_PREFIX": prefix}
        return app(environ, start_response)

    return DispatcherMiddleware(NotFound(), {prefix: proxied})


@pytest.fixture
def server(predictor: Any) -> Iterator[Callable[..., str]]:
    with contextlib.ExitStack() as stack:

        def start(settings: Settings, prefix: str = "") -> str:
            app = create_app(settings, predictor)
            return stack.enter_context(served(under(prefix, app) if prefix else app))

        yield start


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path) as browser:
        yield browser


@pytest.fixture
def pictures(picture: Callable[..., bytes], tmp_path: Path) -> Callable[..., str]:
    """Write pictures of one colour each. Returns their paths as a file chooser takes them."""

    def written(**colors: str) -> str:
        for name, color in colors.items():
            (tmp_path / f"{name}.png").write_bytes(picture(color))
        return "\n".join(str(tmp_path / f"{name}.png") for name in colors)

    return written


def opened(browser: Browser, url: str) -> None:
    browser.call("POST", "/url", {"url": url})
    browser.wait_for(lambda: browser.run("return document.getElementById('card').childElementCount") > 0)


def choose(browser: Browser, select: str, value: str) -> None:
    browser.click(f"{select} option[value='{value}']")


@in_chromium
def test_a_chosen_image_is_answered(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], tmp_path: Path
) -> None:
    url = server(Settings())
    opened(browser, url)
    assert not browser.run("return document.getElementById('prediction').checkVisibility()")  # nothing empty
    (tmp_path / "none.png").write_bytes(b"no picture")
    browser.keys("#files", f"{pictures(fire='#ff6600')}\n{tmp_path / 'none.png'}")
    browser.wait_for(lambda: "1 of 2 images labelled" in browser.text("#state"))
    assert browser.text("#answers .label") == "red"
    assert "red r" in browser.text("#answers")  # the class's id beside its label
    assert "71.4 %" in browser.text("#answers")
    assert "This installation reads" in browser.text("#answers .bad")
    assert "model input, 2 \N{MULTIPLICATION SIGN} 2" in browser.text("#answers")
    assert browser.run("return document.querySelector('.saw img').naturalWidth") == 2
    assert browser.text("#curl") == f"curl -F image=@fire.png -F image=@none.png {url}predict/colors"
    assert 'client.predict_many(["fire.png", "none.png"], model="colors")' in browser.text("#python")
    browser.click("#answers .thumb")
    assert browser.run("return document.getElementById('large').open") is True
    assert browser.text("#large-name") == "fire.png"
    browser.click("#large-close")
    browser.keys("#files", str(tmp_path / "fire.png"))
    browser.wait_for(lambda: "ms total" in browser.text("#times"))
    assert browser.run("return document.getElementById('state').textContent") == "fire.png: red, 71.4 %."


@in_chromium
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_answered(browser: Browser, server: Callable[[Settings], str], sample: Path) -> None:
    opened(browser, server(Settings()))
    browser.click(f"#samples img[src$='{sample.name}']")
    browser.wait_for(lambda: sample.name in browser.text("#answers") and "%" in browser.text("#answers"))
    assert f"-F image=@{sample.name}" in browser.text("#curl")


@in_chromium
def test_the_answer_is_in_view_on_a_phone(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], predictor: TwoModels
) -> None:
    predictor.hold = threading.Event()
    browser.emulate(390)
    opened(browser, server(Settings()))
    browser.keys("#files", pictures(fire="#ff6600"))
    browser.wait_for(lambda: browser.run(VISIBLE.replace("#answers .label", "#state .spinner")))
    assert browser.text("#state") == "Classifying fire.png …"
    predictor.hold.set()
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    browser.wait_for(lambda: browser.run(VISIBLE))
    assert browser.run("return document.documentElement.scrollWidth") <= 390


@in_chromium
def test_another_model_version_or_threshold_asks_again(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], predictor: TwoModels
) -> None:
    url = server(Settings())
    opened(browser, f"{url}?model=colors")
    browser.keys("#files", pictures(fire="#ff6600"))
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    assert not browser.run("return document.getElementById('drawing').checkVisibility()")  # not of ink
    browser.click("#model option:nth-child(2)")
    browser.wait_for(lambda: "drawn" in browser.text("#answers"))
    assert browser.call("GET", "/url") == f"{url}?model=ink"
    assert "/predict/ink" in browser.text("#curl")
    assert browser.run("return document.getElementById('drawing').checkVisibility()")
    browser.click("#model option:nth-child(1)")
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    choose(browser, "#version", "1")
    browser.wait_for(lambda: 1 in predictor.versions_asked)
    browser.run("const t = document.getElementById('threshold'); t.value = 80; t.dispatchEvent(new Event('change'))")
    browser.wait_for(lambda: "uncertain" in browser.text("#answers"))
    assert browser.call("GET", "/url") == f"{url}?model=colors&version=1&min_score=0.8"
    assert f"'{url}predict/colors?version=1&min_score=0.8'" in browser.text("#curl")
    assert 'model="colors", version=1, min_score=0.8' in browser.text("#python")
    opened(browser, f"{url}?model=ink")
    assert browser.run("return document.getElementById('model').value") == "ink"


@in_chromium
def test_many_images_go_in_batches_and_come_back_as_a_csv(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], tmp_path: Path, predictor: Any
) -> None:
    opened(browser, server(Settings(max_images=3)))
    colors = {f"r{i}": "#f00" for i in range(5)} | {"g, 'h'": "#0f0", "b": "#00f"}
    browser.keys("#files", pictures(**colors))
    browser.wait_for(lambda: "7 of 7 images labelled" in browser.text("#state"))
    assert predictor.batches == [3, 3, 1]
    browser.click("#csv")
    saved = tmp_path / "downloads" / "labels.csv"
    browser.wait_for(saved.exists)
    with saved.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"]) for row in rows] == [
        *((f"r{i}.png", "red") for i in range(5)),
        ("g, 'h'.png", "green"),
        ("b.png", "blue"),
    ]
    assert {row["score"] for row in rows} == {"1"}


@in_chromium
def test_a_run_can_be_stopped(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], predictor: TwoModels
) -> None:
    predictor.hold = threading.Event()
    opened(browser, server(Settings(max_images=1)))
    browser.keys("#files", pictures(a="#f00", b="#f00", c="#f00"))
    browser.wait_for(lambda: predictor.out == 1)
    browser.click("#stop")
    browser.wait_for(lambda: "Stopped." in browser.text("#state"))
    predictor.hold.set()
    assert browser.text("#answers").count("Not asked") == 3


DROP = """
    const data = new DataTransfer();
    data.items.add(new File(['hello'], 'notes.txt', { type: 'text/plain' }));
    dispatchEvent(Object.assign(new Event('drop', { cancelable: true }), { dataTransfer: data }))"""


@in_chromium
def test_what_is_dropped_and_no_image_is_told(browser: Browser, server: Callable[[Settings], str]) -> None:
    opened(browser, server(Settings()))
    browser.run(DROP)
    browser.wait_for(lambda: browser.text("#told") == "notes.txt is not an image.")


@in_chromium
def test_a_drawing_is_answered(browser: Browser, server: Callable[[Settings], str]) -> None:
    opened(browser, f"{server(Settings())}?model=ink")
    white = browser.run("return [...document.getElementById('pad').getContext('2d').getImageData(99, 99, 1, 1).data]")
    moves: list[dict[str, Any]] = [
        {
            "type": "pointerMove",
            "duration": 0,
            "origin": {ELEMENT: browser.find("#pad").rpartition("/")[2]},
            "x": -60,
            "y": -60,
        },
        {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "duration": 100, "origin": "pointer", "x": 120, "y": 120},
        {"type": "pointerUp", "button": 0},
    ]
    pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}
    browser.call("POST", "/actions", {"actions": [pointer]})
    dark = browser.run(
        "const d = document.getElementById('pad').getContext('2d').getImageData(0, 0, 280, 280).data;"
        "let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] < 128; return n"
    )
    assert white == [255] * 4
    assert dark > 1000  # pixels
    browser.click("#ask")
    browser.wait_for(lambda: "drawn" in browser.text("#answers"))


@in_chromium
def test_a_picture_is_taken_with_the_camera_or_pasted(browser: Browser, server: Callable[[Settings], str]) -> None:
    opened(browser, server(Settings()))
    browser.click("#film")
    browser.wait_for(lambda: browser.run("return document.getElementById('video').videoWidth") > 0)
    browser.click("#shoot")
    browser.wait_for(lambda: "photo.jpg" in browser.text("#answers"))
    assert not browser.run("return document.getElementById('video').srcObject.active")  # the camera is off again
    browser.run(
        "const canvas = document.createElement('canvas');"
        "canvas.getContext('2d').fillStyle = '#00f'; canvas.getContext('2d').fillRect(0, 0, 300, 150);"
        "canvas.toBlob(blob => { const data = new DataTransfer();"
        "data.items.add(new File([blob], 'pasted.png', { type: 'image/png' }));"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data })); })"
    )
    browser.wait_for(lambda: "pasted.png" in browser.text("#answers"))
    browser.wait_for(lambda: "blue" in browser.text("#answers"))


@in_chromium
def test_the_camera_is_classified_live_with_one_request_out_at_a_time(
    browser: Browser, server: Callable[[Settings], str], predictor: TwoModels
) -> None:
    opened(browser, server(Settings()))
    browser.click("#film")
    browser.wait_for(lambda: browser.run("return document.getElementById('video').videoWidth") > 0)
    browser.click("#live")
    browser.wait_for(lambda: len(predictor.batches) > 5 and "%" in browser.text("#live-told"))
    assert predictor.most_out == 1
    browser.click("#leave")
    browser.wait_for(lambda: not browser.run("return document.getElementById('video').srcObject.active"))
    assert browser.text("#live").strip() == ""  # hidden with its dialog


@in_chromium
def test_exports_beside_the_service_are_shown_until_they_are_done(
    browser: Browser, server: Callable[[Settings], str], tmp_path: Path
) -> None:
    write_state(tmp_path / "1-digits.json", ExportState("digits", "running", "epoch 3 of at most 10", 0.25))
    opened(browser, server(Settings(exports_dir=str(tmp_path))))
    browser.wait_for(lambda: browser.text("#exports") == "digits is being exported: epoch 3 of at most 10")
    assert browser.run("return document.getElementById('model').value") == "colors"
    (tmp_path / "1-digits.json").unlink()
    browser.wait_for(lambda: not browser.text("#exports"))


@in_chromium
@pytest.mark.parametrize("ending", ["", "/"])
def test_the_pages_keep_the_path_of_a_proxy(
    browser: Browser, server: Callable[..., str], pictures: Callable[..., str], ending: str
) -> None:
    url = server(Settings(trusted_proxies=1), "/team/ml")
    opened(browser, f"{url}team/ml{ending}")
    browser.keys("#files", pictures(fire="#ff6600"))
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    assert f"curl -F image=@fire.png {url}team/ml/predict/colors" in browser.text("#curl")
    assert f'Client("{url}team/ml")' in browser.text("#python")
    browser.click("header a")
    browser.wait_for(lambda: "/team/ml/predict/{model}" in browser.text("#operations"))
    browser.click("header a")
    browser.wait_for(lambda: browser.run("return document.getElementById('model')?.value") == "colors")


@in_chromium
def test_the_specification_can_be_read_and_searched(browser: Browser, server: Callable[[Settings], str]) -> None:
    browser.call("POST", "/url", {"url": f"{server(Settings())}docs"})
    browser.wait_for(lambda: "/predict/{model}" in browser.text("#operations"))
    browser.keys("#search", "metrics")
    shown = "return [...document.querySelectorAll('details:not([hidden]) summary')].map(each => each.textContent)"
    assert [text for text in browser.run(shown) if "/metrics" not in text] == []
    browser.click("details:not([hidden]) summary")
    browser.wait_for(lambda: "text/plain" in browser.text("details[open]"))
    assert browser.text("#found") == "1 operation found."
    browser.run("document.getElementById('search').select()")
    browser.keys("#search", "zebra")
    browser.wait_for(lambda: browser.text("#found") == "No operation has “zebra” in its path or its text.")
    assert browser.run("return document.body.textContent.includes('`')") is False


OPEN = "[...document.querySelectorAll('details')].find(each => each.dataset.text.startsWith(arguments[0])).open = true"


@in_chromium
def test_an_operation_can_be_tried_out(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str]
) -> None:
    key, entry = new_key("a", ["predict"])
    url = server(Settings(api_keys=entry))
    browser.call("POST", "/url", {"url": f"{url}docs"})
    browser.wait_for(lambda: "/predict/{model}" in browser.text("#operations"))
    browser.keys("#key", key)
    browser.run(OPEN.replace("arguments[0]", "'post /predict/'"))
    browser.wait_for(lambda: "photo.jpg" in browser.text("details[open] pre"))
    browser.keys("details[open] input[type=file]", pictures(fire="#ff6600"))
    line = f'curl -H "Authorization: Bearer $KEY" -F image=@fire.png {url}predict/colors'
    assert browser.text("details[open] pre") == line
    browser.click("details[open] button.first")
    browser.wait_for(lambda: "200 OK" in browser.text("details[open] [role=status]"))
    assert '"label": "red"' in browser.text("details[open] [aria-label=Answer]")
    browser.click("details[open] option[value='application/json']")
    browser.wait_for(lambda: "application/json" in browser.text("details[open] pre"))
    browser.click("details[open] button.first")  # the example holds a small picture
    browser.wait_for(lambda: '"label": "blue"' in browser.text("details[open] .try"))
    assert browser.text("details[open] [role=status]").startswith("200 OK")


@in_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_specification_can_be_used_without_mouse_or_screen(
    browser: Browser, server: Callable[[Settings], str], width: int, dark: bool
) -> None:
    browser.emulate(width, dark=dark)
    browser.call("POST", "/url", {"url": f"{server(Settings())}docs"})
    browser.wait_for(lambda: "/predict/{model}" in browser.text("#operations"))
    browser.run(OPEN.replace("arguments[0]", "'post /predict/'"))
    browser.wait_for(lambda: "photo.jpg" in browser.text("details[open] pre"))
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width


@in_chromium
def test_the_page_asks_for_a_key_where_one_is_needed_by_keyboard_alone(
    browser: Browser, server: Callable[[Settings], str]
) -> None:
    key, entry = new_key("a", ["predict"])
    browser.call("POST", "/url", {"url": server(Settings(api_keys=entry))})
    browser.wait_for(lambda: browser.text("#told") == "This service asks for an API key.")
    assert browser.run("return document.activeElement.id") == "key"
    browser.keys("#key", "wrong\ue007")  # Enter
    browser.wait_for(lambda: browser.text("#told") == "The service does not accept this API key.")
    browser.run("document.getElementById('key').value = ''")
    browser.keys("#key", f"{key}\ue004")  # the key, Tab
    browser.wait_for(lambda: browser.run("return document.activeElement.id") == "use")
    browser.keys("#use", "\ue007")  # Enter
    browser.wait_for(lambda: browser.run("return document.getElementById('card').childElementCount") > 0)
    assert not browser.run("return document.getElementById('key-panel').checkVisibility()")
    assert browser.text("#told") == ""
    assert '-H "Authorization: Bearer $KEY"' in browser.text("#curl")


@in_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_used_without_mouse_or_screen(
    browser: Browser, server: Callable[[Settings], str], pictures: Callable[..., str], width: int, dark: bool
) -> None:
    browser.emulate(width, dark=dark)
    opened(browser, f"{server(Settings())}?model=ink")
    assert browser.violations() == []
    browser.keys("#files", pictures(a="#f00", b="#f00"))
    browser.wait_for(lambda: "2 of 2 images labelled" in browser.text("#state"))
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    ground = "rgb(17, 21, 28)" if dark else "rgb(246, 247, 249)"
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == ground
