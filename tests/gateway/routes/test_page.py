"""The page in a real Chromium."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from serving.contract.exports import ExportState, write_state
from serving.gateway.access.keys import new_key
from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.browser import ELEMENT, Browser, chromium, in_chromium

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_need_nothing_from_elsewhere(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.content_type == "text/html; charset=utf-8"
    assert not re.findall(r"(?:src|href|@import|url)\s*[=(]\s*[\"']?(?:https?:)?//", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"\sstyle=|\son[a-z]+=", response.text)  # the policy would forbid them


def test_the_page_is_there_without_a_key(predictor: Any) -> None:
    settings = Settings(api_keys=new_key("a", ["predict"])[1])
    assert create_app(settings, predictor).test_client().get("/").status_code == 200


def under(prefix: str, app: Flask) -> DispatcherMiddleware:
    """Serve the application as a proxy does that takes the prefix off the path and names it in a header."""

    def proxied(environ: dict[str, Any], start_response: Any) -> Any:
        environ |= {"SCRIPT_NAME": "", "PATH_INFO": environ["PATH_INFO"] or "/", "HTTP_X_FORWARDED_PREFIX": prefix}
        return app(environ, start_response)

    return DispatcherMiddleware(NotFound(), {prefix: proxied})


@pytest.fixture
def server(predictor: Any) -> Iterator[Callable[[Settings], str]]:
    with contextlib.ExitStack() as stack:

        def start(settings: Settings, prefix: str = "") -> str:
            app = create_app(settings, predictor)
            server = make_server("127.0.0.1", 0, under(prefix, app) if prefix else app, threaded=True)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield start


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path) as browser:
        yield browser


@in_chromium
def test_exports_beside_the_service_are_shown_until_they_are_done(
    browser: Browser, server: Callable[[Settings], str], tmp_path: Path
) -> None:
    write_state(tmp_path / "1-digits.json", ExportState("digits", "running", "epoch 3 of at most 10", 0.25))
    browser.call("POST", "/url", {"url": server(Settings(exports_dir=str(tmp_path)))})
    browser.wait_for(lambda: browser.text("#exports") == "digits is being exported: epoch 3 of at most 10")
    assert browser.run("return document.getElementById('model').value") == "colors"
    (tmp_path / "1-digits.json").unlink()
    browser.wait_for(lambda: not browser.text("#exports"))


@in_chromium
def test_a_picture_and_a_drawing_are_answered(
    browser: Browser, server: Callable[[Settings], str], picture: Callable[..., bytes], tmp_path: Path
) -> None:
    url = server(Settings())
    browser.call("POST", "/url", {"url": url})
    browser.wait_for(lambda: browser.run("return document.getElementById('model').value") == "colors")
    (tmp_path / "fire.png").write_bytes(picture("#ff6600"))
    (tmp_path / "none.png").write_bytes(b"no picture")
    browser.keys("#files", f"{tmp_path / 'fire.png'}\n{tmp_path / 'none.png'}")
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    assert browser.text("#answers strong") == "red"
    assert "red r" in browser.text("#answers")  # the class's id beside its label
    assert "This installation reads" in browser.text("#answers .bad")
    assert "predict" in browser.text("#times")
    assert "model input, 2 \N{MULTIPLICATION SIGN} 2" in browser.text("#answers")
    assert browser.run("return document.querySelector('img.saw').naturalWidth") == 2
    assert f"curl -F image=@photo.jpg {url}predict/colors" in browser.text("#curl")
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
    browser.wait_for(lambda: "33.3 %" in browser.text("#answers"))


@in_chromium
def test_a_picture_is_taken_with_the_camera_or_pasted(browser: Browser, server: Callable[[Settings], str]) -> None:
    browser.call("POST", "/url", {"url": server(Settings())})
    browser.wait_for(lambda: browser.run("return document.getElementById('model').value") == "colors")
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
    assert browser.text("#answers strong") == "blue"


@in_chromium
@pytest.mark.parametrize("ending", ["", "/"])
def test_the_pages_keep_the_path_of_a_proxy(
    browser: Browser, server: Callable[..., str], picture: Callable[..., bytes], tmp_path: Path, ending: str
) -> None:
    url = server(Settings(trusted_proxies=1), "/team/ml")
    browser.call("POST", "/url", {"url": f"{url}team/ml{ending}"})
    browser.wait_for(lambda: browser.run("return document.getElementById('model').value") == "colors")
    (tmp_path / "fire.png").write_bytes(picture("#ff6600"))
    browser.keys("#files", str(tmp_path / "fire.png"))
    browser.wait_for(lambda: "71.4 %" in browser.text("#answers"))
    assert f"curl -F image=@photo.jpg {url}team/ml/predict/colors" in browser.text("#curl")
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
    assert "text/plain" in browser.text("details[open]")


@in_chromium
def test_the_page_asks_for_a_key_where_one_is_needed_by_keyboard_alone(
    browser: Browser, server: Callable[[Settings], str]
) -> None:
    key, entry = new_key("a", ["predict"])
    browser.call("POST", "/url", {"url": server(Settings(api_keys=entry))})
    browser.wait_for(lambda: "API key" in browser.text("#answers"))
    browser.keys("#key", f"{key}\ue004\ue007")  # the key, Tab, Enter
    browser.wait_for(lambda: browser.run("return document.activeElement.id") == "use")
    browser.keys("#use", "\ue007")
    browser.wait_for(lambda: browser.run("return document.getElementById('card').childElementCount") > 0)
    assert "No image yet." in browser.text("#answers")


@in_chromium
def test_the_page_fits_a_phone_in_the_dark(browser: Browser, server: Callable[[Settings], str]) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    for command, params in (("setDeviceMetricsOverride", phone), ("setEmulatedMedia", dark)):
        browser.call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": params})
    browser.call("POST", "/url", {"url": server(Settings())})
    browser.wait_for(lambda: browser.run("return document.getElementById('model').value") == "colors")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 28)"
