import csv
import io
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sightline import UsageError

from clients.batch import writers
from clients.batch.errors import OutputFailed
from clients.batch.journal import Journal
from clients.batch.rows import FAILED, Row
from clients.batch.writers import COLUMNS, FORMATS, check_output, is_results, read_rows, write_rows

ENDINGS = [ending for ending in FORMATS if ending != ".parquet" or find_spec("pyarrow")]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ROWS = st.builds(
    Row,
    path=TEXT,
    status=st.sampled_from(["ok", "failed"]),
    label=TEXT,
    label_id=TEXT,
    score=st.none() | st.floats(0, 1),
    top=st.lists(
        st.tuples(TEXT, st.floats(0, 1)) | st.tuples(TEXT, st.floats(0, 1), TEXT.filter(bool)), max_size=3
    ).map(tuple),
    model=TEXT,
    version=st.none() | st.integers(0, 2**63 - 1),
    ms=st.none() | st.floats(0, 1e6),
    sha256=TEXT,
    error_code=TEXT,
    error=TEXT,
    truth=TEXT,
    previous_label=TEXT,
)


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(ROWS, max_size=5))
def test_every_format_gives_back_what_it_was_given(tmp_path: Path, ending: str, rows: list[Row]) -> None:
    path = str(tmp_path / f"rows{ending}")
    write_rows(path, rows)
    assert list(read_rows(path)) == rows
    assert [entry.name for entry in tmp_path.iterdir()] == [f"rows{ending}"]


def test_a_row_of_jsonl_reads_like_an_answer(tmp_path: Path) -> None:
    write_rows(
        str(tmp_path / "r.jsonl"), [Row("é.png", "ok", "Boot", "", 0.5, (("Boot", 0.5), ("Bag", 0.25)), "fashion", 3)]
    )
    text = (tmp_path / "r.jsonl").read_text()
    assert json.loads(text)["top"] == [{"label": "Boot", "score": 0.5}, {"label": "Bag", "score": 0.25}]
    assert "é.png" in text


def test_the_id_of_a_class_stands_beside_its_label(tmp_path: Path) -> None:
    row = Row("a.png", "ok", "kuvasz", "n02104029", 0.5, (("kuvasz", 0.5, "n02104029"),))
    write_rows(str(tmp_path / "r.jsonl"), [row])
    entry = json.loads((tmp_path / "r.jsonl").read_text())
    assert (entry["label"], entry["label_id"]) == ("kuvasz", "n02104029")
    assert entry["top"] == [{"label": "kuvasz", "score": 0.5, "id": "n02104029"}]
    write_rows(str(tmp_path / "r.csv"), [row])
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert lines[0].startswith("path,status,label,label_id,score,top,")
    assert lines[1].startswith('a.png,ok,kuvasz,n02104029,0.5,"[[""kuvasz"", 0.5, ""n02104029""]]",')


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_from_before_there_were_ids_is_read(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / f"rows{ending}")
    with monkeypatch.context() as before:
        before.setattr(writers, "COLUMNS", tuple(name for name in writers.COLUMNS if name != "label_id"))
        write_rows(path, [Row("a.png", "ok", "Boot", score=0.5, top=(("Boot", 0.5),))])
    assert list(read_rows(path)) == [Row("a.png", "ok", "Boot", "", 0.5, (("Boot", 0.5),))]


@pytest.mark.integration
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from clients.batch.rows import Row\n"
        "from clients.batch.writers import write_rows\n"
        "from clients.batch.errors import OutputFailed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    write_rows(sys.argv[1], (Row(str(n), 'ok') for n in range(100_000)))\n"
        "except OutputFailed as exc:\n"
        "    print(exc)\n"
    )

    for ending in ENDINGS:
        path = tmp_path / f"rows{ending}"
        path.write_text("old")
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "cannot be written" in done.stdout, done.stderr
        assert "journal" in done.stdout
        assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_what_would_fail_at_the_end_fails_at_the_start(tmp_path: Path) -> None:
    for path, why in (("x.xls", "ending"), ("nowhere/x.csv", "no folder"), (".csv", "ending")):
        with pytest.raises(UsageError, match=why):
            check_output(str(tmp_path / path))
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_output(str(tmp_path / "f.csv"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"other{ending}"
    path.write_bytes(b'{"a": 1}\nb,c\n')
    with pytest.raises(UsageError, match="not a file that"):
        list(read_rows(str(path)))
    with pytest.raises(UsageError, match="no file"):
        list(read_rows(str(tmp_path / f"none{ending}")))


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> object:
        yield Row("a", FAILED)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputFailed, match="No space left"):
        write_rows(str(tmp_path / "r.csv"), rows())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(ROWS, max_size=5))
def test_a_csv_for_excel_gives_back_what_it_was_given(tmp_path: Path, rows: list[Row]) -> None:
    write_rows(str(tmp_path / "r.csv"), rows, excel=True)
    assert list(read_rows(str(tmp_path / "r.csv"))) == rows


def test_a_csv_for_excel_is_marked_and_holds_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    row = Row("=HYPERLINK(1)", "ok", "-1", "=id", 0.5, (("-1", 0.5),), error="@x", truth="+1", previous_label="\tx")
    write_rows(str(path), [row], excel=True)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfpath,")
    cells = next(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    assert [name for name in COLUMNS if cells[name].startswith(("=", "+", "-", "@", "\t", "\r"))] == []
    assert cells["path"] == "'=HYPERLINK(1)"
    with pytest.raises(UsageError, match=r"--excel writes a \.csv"):
        check_output(str(tmp_path / "r.jsonl"), excel=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_results_are_told_from_other_files(tmp_path: Path, ending: str) -> None:
    rows = [Row(f"{'folder/' * 10}{n:06}.png", "ok", "cat", score=0.5, top=(("cat", 0.5),)) for n in range(20_000)]
    for count, excel in ((0, False), (20_000, False), (1, ending == ".csv")):
        path = str(tmp_path / f"{count}{ending}")
        write_rows(path, rows[:count], excel=excel)
        assert is_results(path) == (count > 0 or ending != ".jsonl")  # of no rows, that is an empty file
    other = tmp_path / f"other{ending}"
    other.write_bytes(b'{"path": "x", "label": "y"}\npath,label\n')
    assert not is_results(str(other))
    assert not is_results(str(tmp_path / f"none{ending}"))


def test_a_journal_is_told_from_other_files(tmp_path: Path) -> None:
    path = str(tmp_path / "x.csv.journal")
    Journal(path).close()
    assert is_results(path)
    assert is_results(f"{path}-wal")
    (tmp_path / "my.journal").write_text("Dear diary")
    assert not is_results(str(tmp_path / "my.journal"))
