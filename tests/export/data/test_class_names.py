import json
import unicodedata
from pathlib import Path

import pytest

from export.data.class_names import read_labels
from serving.contract.errors import InvalidData

KOREAN = "고양이"


def read(tmp_path: Path, name: str, content: str, encoding: str = "utf-8", expected: int | None = None) -> list[str]:
    (tmp_path / name).write_bytes(content.encode(encoding))
    return [label.name for label in read_labels(tmp_path / name, expected)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\r\nsmall dog\r\n\r\nbird, blue\n"),
        ("teachable_machine.txt", "0 cat\n1 small dog\n2 bird, blue\n"),
        ("colons.txt", "1: small dog\n0: cat\n2: bird, blue\n"),
        ("commas.txt", "0,cat\n1,small dog\n2,bird, blue\n"),
        ("quoted.txt", 'cat\nsmall dog\n"bird, blue"\n'),
        ("a.csv", 'cat\nsmall dog\n"bird, blue"\n'),
        ("header.csv", 'label\ncat\nsmall dog\n"bird, blue"\n'),
        ("two.csv", '0,cat\n2,"bird, blue"\n1,small dog\n'),
        ("reversed.csv", 'cat,0\nsmall dog,1\n"bird, blue",2\n'),
        ("both.csv", 'id,name\n1,small dog\n0,cat\n2,"bird, blue"\n'),
        ("class.csv", 'class,name\n1,small dog\n0,cat\n2,"bird, blue"\n'),
        ("a.tsv", "0\tcat\n1\tsmall dog\n2\tbird, blue\n"),
        ("list.json", '["cat", "small dog", "bird, blue"]'),
        ("numbers.json", '{"0": "cat", "2": "bird, blue", "1": "small dog"}'),
        ("class_indices.json", '{"bird, blue": 2, "cat": 0, "small dog": 1}'),
        ("json.txt", '{"cat": 0, "small dog": 1, "bird, blue": 2}'),
        ("keras.json", '{"0": ["n1", "cat"], "1": ["n2", "small dog"], "2": ["n3", "bird, blue"]}'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_files_that_people_have_are_read(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    assert read(tmp_path, name, content, encoding, 3) == ["cat", "small dog", "bird, blue"]


def test_numbers_that_are_names_stay(tmp_path: Path) -> None:
    assert read(tmp_path, "digits.txt", "7\n8\n9\n") == ["7", "8", "9"]
    assert read(tmp_path, "coins.txt", "1 euro\n2 euro\n") == ["1 euro", "2 euro"]


def test_names_are_composed(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", unicodedata.normalize("NFD", KOREAN)) == [KOREAN]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", "cat\ndog\ncat\n", "names 'cat' twice, as classes 0 and 2"),
        ("a.json", '["cat", "cat"]', "names 'cat' twice, as classes 0 and 1"),
        ("a.json", '{"cat": 0, "cat": 1}', "names 'cat' twice"),
        ("a.json", '{"cat": 0, "dog": 0}', "'cat' and 'dog' have the same number, 0"),
        ("a.json", '{"cat": 1, "dog": 2}', "not numbered from 0 to 1, but 1, 2"),
        ("a.json", '{"0": "cat", "2": "dog"}', "not numbered from 0 to 1, but 0, 2"),
        ("a.json", '["cat", 3]', "3 is no name"),
        ("a.json", '"cat"', "neither a list nor an object"),
        ("a.csv", "cat,small\ndog,large\n", "none of them numbers the classes"),
        ("a.csv", "id,name\n0,cat\n1\n", "has no name"),
        ("a.txt", "cat\ndog\nbird\n", r"names 3 classes \(cat, dog, bird\); the model's output has 2"),
        ("a.txt", "", r"names 0 classes \(none\)"),
    ],
)
def test_anything_else_is_refused_with_the_reason(tmp_path: Path, name: str, content: str, why: str) -> None:
    with pytest.raises(InvalidData, match=why):
        read(tmp_path, name, content, expected=2)


def test_an_old_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=f"as cp949 it reads '{KOREAN}'"):
        read(tmp_path, "a.txt", KOREAN, "cp949")


def test_two_classes_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    index = {"0": ["n02012849", "crane"], "1": ["n03126707", "crane"]}
    assert read(tmp_path, "a.json", json.dumps(index)) == ["crane", "crane"]
