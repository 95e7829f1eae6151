"""A real Chromium, driven by the WebDriver protocol over plain HTTP."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # https://www.w3.org/TR/webdriver2/#elements
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
in_chromium = pytest.mark.skipif(not (DRIVER and BROWSER), reason="there is no chromium with chromedriver")
FLAGS = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--window-size=1000,1300",
)


@dataclass
class Browser:
    http: httpx.Client

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self.http.request(method, path, **({"json": body} if body is not None else {}))
        assert response.status_code == 200, response.text
        return response.json()["value"]

    def find(self, selector: str) -> str:
        found = self.call("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def click(self, selector: str) -> None:
        self.call("POST", f"{self.find(selector)}/click", {})

    def keys(self, selector: str, text: str) -> None:
        self.call("POST", f"{self.find(selector)}/value", {"text": text})

    def run(self, script: str) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return str(self.call("GET", f"{self.find(selector)}/text"))

    def emulate(self, width: int, height: int = 844, *, dark: bool = False) -> None:
        """Take the size of another screen, a phone's below 500 pixels, and its colours."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        for command, params in (("setDeviceMetricsOverride", screen), ("setEmulatedMedia", media)):
            self.call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": params})

    def violations(self) -> list[str]:
        """List what axe-core finds wrong for people who use no mouse or no screen: rule and element.

        Skips the test without axe-core: npm install --no-save axe-core
        """
        if not AXE.exists():
            pytest.skip("axe-core is not installed: npm install --no-save axe-core")
        self.run(AXE.read_text())
        rules = self.run("return axe.run().then(result => result.violations)")
        return [f"{rule['id']}: {node['html'][:200]}" for rule in rules for node in rule["nodes"]]

    def requested(self) -> list[str]:
        """The addresses that were asked for since this was last called."""
        log = self.call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in log]
        return [row["params"]["request"]["url"] for row in events if row["method"] == "Network.requestWillBeSent"]

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, self.text("main")
            time.sleep(0.05)


@contextlib.contextmanager
def served(app: "WSGIApplication") -> Iterator[str]:
    """Serve an application from a thread. Yields its address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser of its own; what it downloads lies in `folder / "downloads"`. Skips the test where none starts."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = {
        "binary": BROWSER,
        "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"],
        "prefs": {"download.default_directory": str(folder / "downloads")},
    }
    capabilities = {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"performance": "ALL"},
    }
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if http.get("/status").json()["value"]["ready"]:
                        break
                time.sleep(0.1)
            answer = http.post("/session", json={"capabilities": {"alwaysMatch": capabilities}})
            if answer.status_code != 200:
                pytest.skip(f"chromium does not start here: {answer.text[:200]}")
            session = f"http://127.0.0.1:{port}/session/{answer.json()['value']['sessionId']}"
            http.base_url = httpx.URL(session)
            try:
                yield Browser(http)
            finally:
                assert http.delete(session).status_code == 200  # else the browser would outlive its test
    finally:
        process.terminate()
        process.wait(10)
