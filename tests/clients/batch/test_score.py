import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result as Invoked
from sightline import Client
from sightline.calls import Asked

from clients.batch.journal import Journal, Result
from clients.batch.rows import FAILED, OK, Row
from clients.batch.score import score
from clients.batch.scorer import FailureLimit, Plan, Progress, Scorer
from clients.batch.sources import Input
from clients.batch.writers import read_rows
from serving.contract.errors import (
    ModelFailed,
    OperatorError,
    OutputFailed,
    Overloaded,
    ScoringStopped,
    ServiceUnreachable,
    UnreadableFile,
    UsageError,
)
from serving.contract.image import decode_image
from serving.contract.image_limits import ImageLimits
from tests.clients.shades import Serve, Service, ShadePredictor, png

GRAYS = {"a.png": 10, "b.png": 100, "c/d.png": 150, "c/e.png": 250}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    (root / "c").mkdir(parents=True)
    for name, gray in GRAYS.items():
        (root / name).write_bytes(png(gray))
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


def scored(service: Service, source: Path | str, out: Path, *more: str) -> Invoked:
    arguments = [str(source), "--model", "shades", "--out", str(out), "--url", service.url, "--ordered", *more]
    return CliRunner().invoke(score, arguments)


def summary(result: Invoked) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout)
    return found


def rows(out: Path) -> list[Row]:
    return list(read_rows(str(out)))


def test_every_picture_has_one_row(service: Service, folder: Path, out: Path) -> None:
    result = scored(service, folder, out)
    assert result.exit_code == 0
    assert [(Path(row.path).name, row.label, row.status) for row in rows(out)] == [
        ("a.png", "black", OK), ("b.png", "dark", OK), ("d.png", "light", OK), ("e.png", "white", OK),
    ]  # fmt: skip
    first = rows(out)[0]
    assert (first.model, first.version, len(first.sha256), len(first.top)) == ("shades", 1, 64, 4)
    assert first.score == pytest.approx(0.7)
    assert "4 rows in" in result.stdout.replace("\n", " ")


def test_labels_and_scores_are_those_of_single_pictures(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    with Client(service.url) as client:
        for row in rows(out):
            single = client.predict(row.path, model="shades")
            assert (row.label, row.score) == (single.label, single.score)
            assert row.top == tuple((label.label, label.score) for label in single.top)


def test_failures_are_rows_too(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkdir(folder / os.fsdecode(b"odd \xff\n"))
    (folder / os.fsdecode(b"odd \xff\n") / "--x.png").write_bytes(png(10))
    result = scored(service, folder, out)
    assert result.exit_code == 1
    by_name = {Path(row.path).name: row for row in rows(out)}
    assert len(by_name) == 8
    assert {name: row.error_code for name, row in by_name.items() if row.status == FAILED} == {
        "bad.png": "not_an_image", "empty.png": "empty_image", "gone.png": "unreadable_file",
    }  # fmt: skip
    assert "odd \\xff\n/--x.png" in by_name["--x.png"].path
    assert by_name["bad.png"].sha256
    assert by_name["bad.png"].error


def test_a_file_that_vanishes_after_it_was_listed_is_a_row(service: Service, folder: Path, out: Path) -> None:
    names = folder / "names.txt"
    names.write_text(f"{folder}/a.png\n{folder}/vanished.png\n{folder}/a.png\n")
    assert scored(service, names, out).exit_code == 1
    assert [(row.label, row.error_code) for row in rows(out)] == [
        ("black", ""), ("", "unreadable_file"), ("black", ""),
    ]  # fmt: skip


def test_truth_of_a_table_comes_through(service: Service, folder: Path, tmp_path: Path, out: Path) -> None:
    table = tmp_path / "set.csv"
    table.write_text(f"path,truth\n{folder}/a.png,black\n{folder}/b.png,white\n")
    scored(service, table, out)
    assert [(row.truth, row.label) for row in rows(out)] == [("black", "black"), ("white", "dark")]


def test_the_same_command_again_does_nothing(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    first = summary(scored(service, folder, out, "--json"))
    before, asked = rows(out), len(service.predictor.batches)
    second = scored(service, folder, out, "--json")
    assert (first["answered"], summary(second)["answered"], second.exit_code) == (5, 0, 1)
    assert rows(out) == before
    assert len(service.predictor.batches) == asked
    out.unlink()
    assert scored(service, folder, out).exit_code == 1
    assert rows(out) == before


def test_what_is_there_is_never_overwritten_silently(service: Service, folder: Path, out: Path) -> None:
    out.write_text("precious")
    result = scored(service, folder, out)
    assert isinstance(result.exception, UsageError)
    assert out.read_text() == "precious"
    assert not Path(f"{out}.journal").exists()
    assert scored(service, folder, out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 4
    other = scored(service, folder / "c", out)
    assert isinstance(other.exception, UsageError)
    assert "another run" in str(other.exception)
    assert scored(service, folder / "c", out, "--overwrite").exit_code == 0
    assert len(rows(out)) == 2


def test_what_failed_is_tried_again_when_asked(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    assert scored(service, folder, out).exit_code == 1
    (folder / "bad.png").write_bytes(png(250))
    assert scored(service, folder, out).exit_code == 1
    again = scored(service, folder, out, "--retry-failed", "--json")
    assert (again.exit_code, summary(again)["answered"]) == (0, 1)
    assert [row.label for row in rows(out)] == ["black", "dark", "white", "light", "white"]


def test_only_what_is_new_or_changed_is_scored_and_flips_are_told(service: Service, folder: Path, out: Path) -> None:
    (folder / "bad.png").write_bytes(b"text")
    scored(service, folder, out)
    service.predictor.batches.clear()
    (folder / "a.png").write_bytes(png(250))  # changed, and its label flips
    (folder / "new.png").write_bytes(png(10))
    (folder / "b.png").unlink()
    result = scored(service, folder, out, "--changed-only", "--json")
    found = summary(result)
    assert found["flips"] == [["black", "white", 1]]
    assert sum(service.predictor.batches) == 2
    by_name = {Path(row.path).name: row for row in rows(out)}
    assert sorted(by_name) == ["a.png", "bad.png", "d.png", "e.png", "new.png"]
    assert (by_name["a.png"].label, by_name["a.png"].previous_label) == ("white", "black")
    assert (by_name["d.png"].label, by_name["d.png"].previous_label) == ("light", "light")
    assert by_name["new.png"].previous_label == ""
    assert summary(scored(service, folder, out, "--changed-only", "--json"))["flips"] == []


def test_another_version_is_noticed(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    service.predictor.version, service.predictor.inverted_from = 2, 2
    with Journal(f"{out}.journal") as journal:
        journal._db.execute("DELETE FROM results WHERE ordinal = 4")  # as if it had been killed before the last
    mixed = scored(service, folder, out, "--json")
    assert "more than one version answered: 3 by version 1, 1 by version 2" in " ".join(summary(mixed)["notes"])  # type: ignore[arg-type]
    renewed = summary(scored(service, folder, out, "--changed-only", "--json"))
    assert renewed["versions"] == [["2", 4]]
    assert sorted(renewed["flips"]) == [["black", "white", 1], ["dark", "light", 1], ["light", "dark", 1]]  # type: ignore[call-overload]


def test_too_many_failures_stop_early_and_resumably(service: Service, folder: Path, out: Path) -> None:
    for number in range(40):
        (folder / f"x{number}.png").write_bytes(b"text")
    arguments = ["--max-failures", "5", "--per-request", "4", "--concurrency", "1"]
    stopped = scored(service, folder, out, *arguments)
    assert isinstance(stopped.exception, ScoringStopped)
    assert not out.exists()
    with Journal(f"{out}.journal") as journal:
        assert 6 <= journal.failures() < 40
    assert scored(service, folder, out, "--max-failures", "99%").exit_code == 1
    assert len(rows(out)) == 44
    assert scored(service, folder, out, "--max-failures", "many").exit_code == 2
    assert FailureLimit(share=0.05).is_passed(6, 100)
    assert not FailureLimit(share=0.05).is_passed(5, 100)
    assert not FailureLimit(share=0.05).is_passed(6, 20)


def test_nothing_to_score_and_nowhere_to_write_are_said_at_once(service: Service, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, target, why in (
        (tmp_path / "empty", out, "no picture"),
        (tmp_path / "nowhere", out, "there is no"),
        (tmp_path, tmp_path / "x.doc", "ending"),
    ):
        result = scored(service, source, target)
        assert isinstance(result.exception, UsageError), why
        assert why in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.mark.integration
def test_no_service_and_no_model_at_the_start_are_exit_2(service: Service, folder: Path, out: Path) -> None:
    arguments = [str(folder), "--model", "nobody", "--out", str(out), "--url"]
    assert isinstance(CliRunner().invoke(score, [*arguments, service.url]).exception, OperatorError)
    command = [sys.executable, "-m", "clients", "score", *arguments, "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, list(folder.parent.glob("out*"))) == (2, [])
    assert "no service at" in done.stderr


def test_a_second_run_into_the_same_file_is_refused(service: Service, folder: Path, out: Path) -> None:
    scored(service, folder, out)
    with Journal(f"{out}.journal"):
        result = scored(service, folder, out)
    assert isinstance(result.exception, UsageError)
    assert "in use" in str(result.exception)


def test_a_journal_that_is_none_is_refused(service: Service, folder: Path, out: Path) -> None:
    Path(f"{out}.journal").write_bytes(b"something else entirely" * 100)
    assert "not a journal" in str(scored(service, folder, out).exception)
    assert scored(service, folder, out, "--overwrite").exit_code == 0


def test_a_folder_that_holds_the_output_is_fine(service: Service, folder: Path) -> None:
    out = folder / "labels.jsonl"
    assert scored(service, folder, out).exit_code == 0
    assert scored(service, folder, out, "--changed-only").exit_code == 0
    assert len(rows(out)) == 4


class Memory:
    """A source of so many evenly gray pictures that are nowhere on a disk."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.data = png(200, side=8)

    def inputs(self) -> Iterator[Input]:
        return (Input(f"memory/some/longish/folder/name/{number:09}.png") for number in range(self.count))

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        return self.data

    def close(self) -> None:
        """Nothing is open."""


def run_scorer(service: Service, journal: Journal, source: Memory, **plan: object) -> Progress:
    with Client(service.url) as client:
        return Scorer(source, journal, client, Plan(Asked("shades", 1), 1, **plan)).run()  # type: ignore[arg-type]


def listed_journal(tmp_path: Path, source: Memory) -> Journal:
    journal = Journal(str(tmp_path / "x.journal"))
    journal.list_inputs(source.inputs(), {})
    return journal


@pytest.mark.parametrize("score", [0.1, 1, 1e-300, float("inf"), float("nan")])
def test_the_journal_gives_back_what_it_was_given(tmp_path: Path, score: float) -> None:
    top = (("T-shirt/top", score), ('a "quoted" \\ label', 0.30000000000000004), ("Füße\n", 0.0))
    with listed_journal(tmp_path, Memory(1)) as journal:
        journal.record([Result(1, label=top[0][0], score=score, top=top)])
        (row,) = journal.rows("shades", ordered=True)
    assert repr(row.top) == repr(top)


def test_refusals_slow_it_down_and_lose_nothing(service: Service, tmp_path: Path) -> None:
    service.predictor.trouble = [Overloaded("full") for _ in range(6)]
    source = Memory(300)
    with listed_journal(tmp_path, source) as journal:
        progress = run_scorer(service, journal, source, per_request=10)
        assert (progress.rows, progress.failures) == (300, 0)


def test_a_picture_that_breaks_the_model_is_found_and_its_neighbours_are_answered(serve: Serve, tmp_path: Path) -> None:
    class Touchy(ShadePredictor):
        def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
            if (batch.reshape(len(batch), -1).mean(axis=1) == 13).any():
                raise ModelFailed("thirteen")
            return super().predict(served, batch, *call)

    class OneBad(Memory):
        def read(self, path: str, locator: str) -> bytes:
            return png(13, side=8) if path.endswith("17.png") else super().read(path, locator)

    source = OneBad(50)
    with listed_journal(tmp_path, source) as journal:
        progress = run_scorer(serve(predictor=Touchy()), journal, source, per_request=50)
        assert (progress.rows, progress.failures) == (50, 1)
        assert journal.tally("error_code", FAILED) == [("model_failed", 1)]


def test_photos_travel_a_few_in_a_request(serve: Serve, tmp_path: Path) -> None:
    class Counting(ShadePredictor):
        sizes: list[int] = []  # noqa: RUF012

        def predict(self, served, batch, *call):  # type: ignore[no-untyped-def]
            self.sizes.append(len(batch))
            return super().predict(served, batch, *call)

    class Photos(Memory):
        def read(self, path: str, locator: str) -> bytes:
            return super().read(path, locator) + bytes(200_000)  # after its end, a PNG may hold anything

    source = Photos(20)
    with listed_journal(tmp_path, source) as journal:
        assert run_scorer(serve(predictor=Counting()), journal, source).rows == 20
    assert Counting.sizes == [2] * 10


def test_a_service_that_stays_away_stops_the_run_after_its_patience(serve: Serve, tmp_path: Path) -> None:
    service = serve(predictor=ShadePredictor(seconds=0.05))
    source = Memory(400)
    with listed_journal(tmp_path, source) as journal:
        threading.Timer(0.3, service.stop).start()
        with pytest.raises(ScoringStopped, match="--patience"):
            run_scorer(service, journal, source, per_request=4, patience_seconds=1.0)
        recorded = journal.done()
        assert 0 < recorded < 400
        back = serve(port=service.port)
        assert run_scorer(back, journal, source).answered == 400 - recorded


def test_a_service_that_comes_back_in_time_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    service = serve(predictor=ShadePredictor(seconds=0.05))
    source = Memory(400)

    def restart() -> None:
        service.stop()
        time.sleep(0.5)
        serve(port=service.port)

    with listed_journal(tmp_path, source) as journal:
        timer = threading.Timer(0.3, restart)
        timer.start()
        assert run_scorer(service, journal, source, per_request=4, patience_seconds=20.0).rows == 400
        timer.join()


def test_a_journal_that_cannot_grow_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "x.journal"))
    journal.list_inputs([Input("a")], {})
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutputFailed, match="full"):
        journal.list_inputs([Input("x" * 1000)] * 1000, {})
    assert [one.path for one in journal.pending()] == ["a"]
    journal.close()


def peak_megabytes(folder: Path, count: int) -> float:
    """The most memory that a program takes which lists, records and writes so many inputs."""
    folder = folder / str(count)
    folder.mkdir()
    code = (
        "import re, sys\n"
        "from clients.batch.journal import Journal, Result\n"
        "from clients.batch.sources import Input\n"
        "from clients.batch.writers import write_rows\n"
        "count = int(sys.argv[2])\n"
        "journal = Journal(sys.argv[1] + '/x.journal')\n"
        "journal.list_inputs((Input(f'some/longish/folder/name/{n:09}.png') for n in range(count)), {})\n"
        "chunk = []\n"
        "for pending in journal.pending():\n"
        "    chunk.append(Result(pending.ordinal, label='Boot', score=.5, top=(('Boot', .5),), sha256='0' * 64))\n"
        "    if len(chunk) == 64 or pending.ordinal == count:\n"
        "        journal.record(chunk)\n"
        "        chunk = []\n"
        "assert journal.done() == count\n"
        "write_rows(sys.argv[1] + '/x.csv', journal.rows('m', ordered=False))\n"
        "journal.close()\n"
        # of this program alone: getrusage's maximum is inherited from the process that started it
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


@pytest.mark.integration
def test_memory_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    few, many = peak_megabytes(tmp_path, 2_000), peak_megabytes(tmp_path, 100_000)
    assert many - few < 40  # MB; 98,000 paths and rows as objects would be over 100
    assert many < 200


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_inputs_take_less_than_200_megabytes(tmp_path: Path) -> None:
    peak = peak_megabytes(tmp_path, 1_000_000)
    print(f"{peak:.0f} MB")
    assert peak < 200


def test_a_read_error_of_any_source_is_a_row(service: Service, tmp_path: Path) -> None:
    class Broken(Memory):
        def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
            raise UnreadableFile(f"{path} has a \udcff in it")

    source = Broken(3)
    with listed_journal(tmp_path, source) as journal:
        assert run_scorer(service, journal, source).failures == 3
        assert [row.error_code for row in journal.rows("m", ordered=True)] == ["unreadable_file"] * 3


def test_sqlite_output_can_be_queried(service: Service, folder: Path, tmp_path: Path) -> None:
    scored(service, folder, tmp_path / "out.sqlite")
    db = sqlite3.connect(tmp_path / "out.sqlite")
    assert db.execute("SELECT label, count(*) FROM results GROUP BY 1 ORDER BY 1").fetchall()[0] == ("black", 1)
    db.close()


def test_pictures_of_the_tests_are_what_they_seem() -> None:
    assert decode_image(png(13, side=8), ImageLimits()).mean() == 13


def test_a_service_that_is_not_there_is_no_row() -> None:
    with Client("http://127.0.0.1:1", max_retries=0) as client, pytest.raises(ServiceUnreachable):
        client.predict_many([png(1)], model="shades")
