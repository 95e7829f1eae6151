"""The pages on the client name what exists, and nothing else."""

import re
from pathlib import Path

import click
import pytest
from sightline import Client
from sightline.faces import Faces

from clients.batch.compare import compare_models
from clients.batch.review import review
from clients.batch.score import score
from clients.batch.writers import COLUMNS, FORMATS
from clients.commands import models, predict
from clients.doctor import doctor
from serving.__main__ import serve

DOCS = Path(__file__).parents[2] / "docs"
CLIENT, SCORE = (DOCS / "client.md").read_text(), (DOCS / "score.md").read_text()


def flags(*commands: click.Command) -> set[str]:
    return {flag for command in commands for parameter in command.params for flag in parameter.opts if flag[:2] == "--"}


def test_every_option_of_scoring_is_documented() -> None:
    assert {flag for flag in flags(score, review, compare_models) if flag not in SCORE} == set()


@pytest.mark.parametrize("text", [CLIENT, SCORE], ids=["client.md", "score.md"])
def test_every_option_that_is_documented_exists(text: str) -> None:
    known = flags(score, review, compare_models, predict, models, doctor, serve)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_every_method_is_documented() -> None:
    for name in dir(Client):
        if not name.startswith("_") and name not in ("close", "predict_uploads"):
            assert name in CLIENT, name
    for name in dir(Faces):
        assert name.startswith("_") or f"faces.{name}" in CLIENT


def test_every_column_and_format_is_documented() -> None:
    assert [name for name in COLUMNS if f"`{name}`" not in SCORE] == []
    assert [ending for ending in FORMATS if f"`{ending}`" not in SCORE] == []


@pytest.mark.parametrize("text", [CLIENT, SCORE], ids=["client.md", "score.md"])
def test_examples_are_python(text: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, "example", "exec")
