"""Exports beside a service, with a program in place of `python -m export` that obeys the name of the model."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.contract.exports import ExportState, read_states
from serving.first_models import PENDING_FILE, FirstModels, curl_line, first_models

PROGRAM = """
import os, sys, time
from pathlib import Path
sys.path.append({root!r})
from serving.contract.exports import update_state
_, file, name, _, out = sys.argv[1:]
if name == "broken":
    print("epoch 1")
    sys.exit("sightline: There is no data.\\n  Name its folder with --data.")
update_state(Path(file), f"niceness {{os.nice(0)}}", 0.5)
if name == "endless":
    time.sleep(600)
(Path(out) / name / "1" / "assets.extra" / "golden").mkdir(parents=True)
(Path(out) / name / "1" / "assets.extra" / "golden" / "000.png").touch()
"""
Start = Callable[..., FirstModels]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def start(tmp_path: Path, models: Path) -> Start:
    package = tmp_path / "programs" / "export"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM.format(root=str(Path(__file__).parents[1])))
    environ = {**os.environ, "PYTHONPATH": str(package.parent)}
    return lambda *names: FirstModels(models, names, tmp_path / "states", url="http://here:1", environ=environ)


def run_until(exports: FirstModels, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        exports.tick()
        time.sleep(0.01)


def test_a_new_service_wants_the_first_models_and_one_with_models_nothing(models: Path) -> None:
    assert first_models(models, demo=False, faces=False) == ["imagenet", "digits"]
    assert first_models(models, demo=True, faces=True) == ["imagenet", "digits", "fashion", "face-encoder"]
    (models / "mine" / "1").mkdir(parents=True)
    assert first_models(models, demo=False, faces=False) == []
    assert first_models(models, demo=False, faces=True) == ["face-encoder"]
    assert first_models(models, demo=True, faces=False) == ["fashion"]


@pytest.mark.integration
def test_exports_run_one_after_the_other_the_later_ones_at_the_lowest_priority(
    start: Start, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports, seen, own = start("first", "second"), set[str](), os.nice(0)

    def done() -> bool:
        seen.update(str(state) for state in read_states(tmp_path / "states"))
        return not read_states(tmp_path / "states")

    run_until(exports, done)
    assert {"first (waiting)", f"first (niceness {own})", "second (waiting)", "second (niceness 19)"} <= seen
    assert {path.name for path in models.iterdir()} == {"first", "second"}
    printed = capsys.readouterr().out
    assert f"Try it:\n  curl -F image=@{models}/second/1/assets.extra/golden/000.png http://here:1" in printed
    exports.stop()


@pytest.mark.integration
def test_an_export_that_fails_is_told_once_with_its_reason_and_the_next_one_runs(
    start: Start, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exports = start("broken", "second")
    run_until(exports, lambda: (models / "second").exists() and len(read_states(tmp_path / "states")) == 1)
    for _ in range(20):
        exports.tick()
    reason = "There is no data. Name its folder with --data."
    assert read_states(tmp_path / "states") == [ExportState("broken", "failed", reason)]
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert f"To try again: sightline export broken --out {models}" in record.getMessage()
    assert not (models / PENDING_FILE).exists()


@pytest.mark.integration
def test_a_stopped_service_ends_the_export_and_goes_on_with_it_at_its_next_start(
    start: Start, models: Path, tmp_path: Path
) -> None:
    exports = start("endless", "digits")
    run_until(exports, lambda: "niceness" in read_states(tmp_path / "states")[0].detail)
    process = exports._process
    assert process is not None
    exports.stop()
    assert process.poll() is not None
    assert (models / PENDING_FILE).read_text().split() == ["endless", "digits"]
    (models / "mine" / "1").mkdir(parents=True)
    assert first_models(models, demo=False, faces=False) == ["digits"]


def test_the_request_to_try_sends_a_sample_photo_of_the_clone(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    url = "http://127.0.0.1:8000"
    assert curl_line(url, "digits", models) == f"curl -F image=@docs/samples/four.jpg {url}/predict/digits"
    assert curl_line(url, "face-encoder", models) is None
    assert curl_line(url, "mine", models) is None
