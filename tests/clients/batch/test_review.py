import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sightline import UsageError

from clients.batch.review import review, script_json
from clients.batch.rows import FAILED, OK, Row
from clients.batch.writers import write_rows
from serving.contract.names import existing_path, shown_path
from tests.clients.shades import png


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four scored pictures in folders named for what they are, and a failed one."""
    rows = []
    for name, label, score in (
        ("cat/1", "cat", 0.9),
        ("cat/2", "dog", 0.51),
        ("dog/3", "dog", 0.7),
        ("dog/4", "dog", 1),
    ):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(100))
        rows.append(Row(str(path), OK, label, "", float(score), ((label, float(score)), ("bird", 0.1))))
    rows.append(Row("</script><b>gone", FAILED, error_code="unreadable_file", error="no such file"))
    write_rows(str(tmp_path / "r.csv"), rows)
    return tmp_path / "r.csv"


def reviewed(results: Path, *more: str) -> Result:
    return CliRunner().invoke(review, [str(results), "--out", str(results.parent / "review.html"), *more])


def data_of(results: Path) -> dict[str, list[dict[str, object]]]:
    page = (results.parent / "review.html").read_text()
    found = re.search(r"const data = (.*);\n", page)
    assert found
    data: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return data


def test_the_failed_and_the_least_certain_come_first(results: Path) -> None:
    assert reviewed(results).output.startswith("5 of 5 pictures")
    rows = data_of(results)["rows"]
    assert [row["score"] for row in rows] == [None, 0.51, 0.7, 0.9, 1.0]
    assert rows[0]["error"] == "unreadable_file: no such file"
    assert rows[0]["image"] == ""
    assert str(rows[1]["image"]).startswith("data:image/jpeg;base64,")


def test_folders_are_the_truth_and_make_the_confusion(results: Path) -> None:
    reviewed(results)
    data = data_of(results)
    assert data["confusion"] == [["cat", "cat", 1], ["cat", "dog", 1], ["dog", "dog", 2]]
    assert data["rows"][1]["truth"] == "cat"
    assert data["labels"] == ["bird", "cat", "dog"]


def test_the_page_needs_nothing_from_elsewhere_and_cannot_be_broken_out_of(results: Path) -> None:
    reviewed(results)
    page = (results.parent / "review.html").read_text()
    assert not re.search(r"(src|href)=[\"']?http|@import|url\(", page)
    assert page.count("</script>") == 1
    assert script_json({"a": "</script>\u2028"}) == '{"a": "\\u003c/script>\\u2028"}'
    assert json.loads(script_json(["</script>\u2028"])) == ["</script>\u2028"]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_filters_and_saves_corrections(results: Path) -> None:
    reviewed(results)
    command = ["node", Path(__file__).parent / "review_page.js", results.parent / "review.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[name] for name in ("all", "wrong", "dog", "failed", "corrected")] == [5, 1, 3, 1, 2]
    assert found["saved"].startswith("\ufeff")
    assert list(csv.DictReader(io.StringIO(found["saved"].removeprefix("\ufeff")))) == [
        {"path": str(results.parent / "cat" / "2.png"), "label": "cat"},
        {"path": str(results.parent / "dog" / "3.png"), "label": '\'=a "new", label'},
    ]


def test_only_the_least_certain_are_shown_of_many(results: Path) -> None:
    assert reviewed(results, "--limit", "2").output.startswith("2 of 5")
    assert len(data_of(results)["rows"]) == 2
    assert sum(count for _, _, count in data_of(results)["confusion"]) == 4  # type: ignore[misc]


def test_a_page_that_is_there_is_not_replaced_silently(results: Path) -> None:
    reviewed(results)
    assert isinstance(reviewed(results).exception, UsageError)
    assert reviewed(results, "--overwrite").exit_code == 0


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert isinstance(reviewed(tmp_path / "x.csv").exception, UsageError)
    write_rows(str(tmp_path / "none.csv"), [])
    assert "no rows" in str(reviewed(tmp_path / "none.csv").exception)


def test_pictures_whose_names_are_not_utf8_are_shown_and_named_for_corrections(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xb0\xed.png"
    Path(os.fsdecode(raw)).write_bytes(png(100))
    write_rows(str(tmp_path / "r.csv"), [Row(shown_path(os.fsdecode(raw)), OK, "cat", score=0.9, top=(("cat", 0.9),))])
    assert reviewed(tmp_path / "r.csv").exit_code == 0
    (row,) = data_of(tmp_path / "r.csv")["rows"]
    assert str(row["image"]).startswith("data:image/jpeg;base64,")
    assert row["file"] == f"{tmp_path}/\\xb0\\xed.png"
    assert os.fsencode(existing_path(str(row["file"]))) == raw
