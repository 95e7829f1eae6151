"""Every runnable block of the README and of docs/ is run as it stands there, against one service.

sh and python blocks run in the order of the page, in a folder that looks like a clone: `.venv`, `docs`, `models`, which
the service serves, and the photos that the pages name. Only the service's address is replaced. A block of text, JSON or
CSV right after a block is the output that it must have; numbers may differ in the third decimal. What cannot run is
marked in the page, on the line before the block: `<!-- not run: REASON -->`.
"""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from export.networks.efficientnet_lite import PACKAGE, weights_file
from tests.browser import chromium, in_chromium
from tests.e2e.conftest import ROOT, Service, free_port, start_service, stop_service
from tests.e2e.exported_models import Exported
from tests.exported import cached

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS, GRPC_ADDRESS = "http://127.0.0.1:8000", "127.0.0.1:8500"
RUN = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}
SHOWN = {"text", "json", "csv"}
OTHER = {"html", "toml", "nginx", "protobuf"}
FENCE = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n+)?```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e-?\d+)?(?!\w)")
CHANGING = {r"\b[0-9a-f]{32}\b": "ID", r"\b20\d\d-\d\d-\d\d(T[\d:]+Z)?\b": "DATE"}
PATIENCE = 20.0  # seconds; a new version is served a moment after it is published
OWN_PHOTOS = {  # a path that the pages name: a file in SIGHTLINE_DATA
    "people/Joe Biden.jpg": "faces/known/biden.jpg",
    "people/Barack Obama.jpg": "faces/known/obama.jpg",
    "party.jpg": "faces/unknown/obama_and_biden.jpg",
    "passport.jpg": "faces/known/obama.jpg",
    "selfie.jpg": "faces/unknown/obama2.jpg",
}


@dataclass(frozen=True)
class Block:
    """A fenced block. reason: why it is not run, "" where it is; output: the block that shows what it prints."""

    page: Path
    line: int
    language: str
    text: str
    reason: str
    output: str | None = None

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.reason

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The page's blocks in their order, each with its output where the page shows it."""
    text = page.read_text()
    found = [(match, *match.groups()) for match in FENCE.finditer(text)]
    following = {
        match.start(): body for match, _, language, body in found if language in SHOWN
    }  # where a block of output begins
    rows = []
    for match, reason, language, body in found:
        after = match.end() + len(re.match(r"\s*", text[match.end() :])[0])  # type: ignore[index]
        line = text.count("\n", 0, match.start()) + 1
        rows.append(Block(page, line, language, body, reason or "", following.get(after)))
    return rows


EVERY = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [page for page in PAGES if any(block.runs for block in EVERY if block.page == page)]


def export_imagenet(folder: Path) -> None:
    places = ["--out", str(folder / "models"), "--reports", str(folder / "reports")]
    subprocess.run([sys.executable, "-m", "export", "imagenet", "--arch", "efficientnetlite0", *places], check=True)


@pytest.fixture(scope="module")
def service(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service over the models of `make serve`, imagenet and digits; pages of one other origin may read answers."""
    if weights_file() is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(cached("imagenet", export_imagenet) / "models", folder / "models")
    shutil.copytree(exported.models / "digits", folder / "models" / "digits")
    (folder / "origin").write_text(f"http://127.0.0.1:{free_port()}")
    service = start_service(folder / "models", SIGHTLINE_CORS_ORIGINS=(folder / "origin").read_text())
    yield service
    stop_service(service)


@pytest.fixture
def clone(service: Service, tmp_path: Path) -> Path:
    """A folder as a reader has it: a clone with the environment, the models, and photos of their own."""
    for name in ("docs", "docker", "packaging", "serving", "Makefile", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    (tmp_path / "models").symlink_to(service.models)
    shutil.copytree(ROOT / "docs" / "samples", tmp_path / "photos", ignore=shutil.ignore_patterns("*.md"))
    data = os.environ.get("SIGHTLINE_DATA")
    shutil.copytree(cached("my-keras", save_model), tmp_path, dirs_exist_ok=True)
    for path, source in OWN_PHOTOS.items():
        if data and (Path(data) / source).exists():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copy(Path(data) / source, tmp_path / path)
    return tmp_path


def save_model(folder: Path) -> None:
    """The reader's own model: `my.keras` and `labels.txt`."""
    import keras

    layers = [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    keras.Sequential(layers).save(folder / "my.keras")
    (folder / "labels.txt").write_text("cat\ndog\n")


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(page: Path, service: Service, clone: Path) -> None:
    for block in blocks(page):
        missing = [path for path in OWN_PHOTOS if path in block.text and not (clone / path).exists()]
        if block.runs and not missing:
            check(block, service, clone)


def test_the_readmes_digit_is_read(service: Service, clone: Path) -> None:
    (block,) = (block for block in blocks(ROOT / "README.md") if "four.jpg" in block.text)
    assert json.loads(run(block, service, clone).stdout)["predictions"][0]["label"] == "4"


def check(block: Block, service: Service, clone: Path) -> None:
    """Run a block until its output is the page's. A block that shows no output runs once."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = run(block, service, clone)
        agrees = block.output is None or same(done.stdout, block.output)
        if (done.returncode == 0 and agrees) or block.output is None or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert done.returncode == 0, f"{block}\n{block.text}\n{done.stdout}\n{done.stderr[-3000:]}"
    assert agrees, f"{block} shows\n{block.output}\nand the output is\n{done.stdout}"


def run(block: Block, service: Service, clone: Path) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SIGHTLINE_URL": service.url,
        "SIGHTLINE_FACES_URL": f"sqlite:///{service.models.parent / 'faces.db'}",
        "SIGHTLINE_DATA": "",  # as a newcomer
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    script = clone / ".block"
    script.write_text(block.text.replace(ADDRESS, service.url).replace(GRPC_ADDRESS, service.grpc))
    command = [*RUN[block.language], str(script)]
    return subprocess.run(command, cwd=clone, env=environ, capture_output=True, text=True, check=False, timeout=300)


def same(output: str, shown: str) -> bool:
    """Compare but for spaces, ids, dates and the third decimal of numbers."""
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (output, shown)]
    return plain(output) == plain(shown) and all(abs(a - b) < 0.01 for a, b in zip(*numbers, strict=True))


def plain(text: str) -> str:
    text = NUMBER.sub("#", text)
    for pattern, word in CHANGING.items():
        text = re.sub(pattern, word, text)
    return " ".join(text.split())


@in_chromium
def test_the_page_of_another_origin_shows_the_label(service: Service, clone: Path, tmp_path: Path) -> None:
    """The HTML of docs/http.md, served by a server of its own as its reader would, in a browser."""
    origin = (service.models.parent / "origin").read_text()
    (block,) = (block for block in EVERY if block.language == "html")
    (clone / "index.html").write_text(block.text.replace(ADDRESS, service.url))
    handler = partial(Quiet, directory=str(clone))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(origin.rpartition(":")[2])), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium(tmp_path / "browser") as browser:
            browser.call("POST", "/url", {"url": f"{origin}/index.html"})
            browser.keys("input[type=file]", str(ROOT / "docs" / "samples" / "coffee.jpg"))
            browser.wait_for(lambda: "espresso" in browser.text("output"))
    finally:
        server.shutdown()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


def test_every_block_says_its_language() -> None:
    assert [str(block) for block in EVERY if block.language not in {*RUN, *SHOWN, *OTHER}] == []


def test_a_block_that_is_not_run_says_why() -> None:
    marked = [mark for page in PAGES for mark in re.findall("<!-- not run", page.read_text())]
    skipped = [block for block in EVERY if block.reason]
    assert len(marked) == len(skipped)
    assert [str(block) for block in skipped if block.language not in RUN or len(block.reason.split()) < 3] == []


def test_a_bare_command_stands_below_the_line_that_activates_the_environment() -> None:
    for page in PAGES:
        text = page.read_text()
        shell = [block for block in blocks(page) if block.language == "sh"]
        bare = [block.line for block in shell if re.search(r"^(sightline|python) ", block.text, re.MULTILINE)]
        activated = text.count("\n", 0, text.find(". .venv/bin/activate")) + 1
        assert not bare or (". .venv/bin/activate" in text and activated <= min(bare)), page.name


def test_a_page_tells_in_two_lines_whom_it_is_for() -> None:
    for page in PAGES[1:]:
        first = page.read_text().split("\n\n")[1]
        assert first.startswith("For "), page.name
        assert len(first.splitlines()) <= 2, page.name


def test_outputs_are_compared_but_for_what_changes() -> None:
    assert same("score 0.9214 of 3f2504e04f8941d39a0c0305e82c3301", "score  0.92\nof " + "0" * 32)
    for other in ("score 0.95 of x", "score 0.92 of y", "score of x"):
        assert not same("score 0.92 of x", other)
