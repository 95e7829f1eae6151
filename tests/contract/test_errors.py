import inspect

import pytest

from serving.contract import errors
from serving.contract.errors import SightlineError
from tests.contract.error_tree import tree


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_tree_that_the_docstring_draws(kind: type[SightlineError]) -> None:
    drawn = {line.strip(" │├└─").split(" ")[0] for line in (errors.__doc__ or "").splitlines()}
    assert kind.__name__ in drawn


def test_every_error_has_a_code_and_a_title_of_its_own() -> None:
    kinds = list(tree())
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.title for kind in kinds)


def test_errors_are_defined_in_one_file() -> None:
    assert {inspect.getmodule(kind) for kind in tree()} == {errors}


def test_an_error_says_what_to_do() -> None:
    assert str(SightlineError("it broke.", hint="Mend it.")) == "it broke. Mend it."


def test_detail_and_hint_are_sentences_where_they_are_printed_together() -> None:
    assert str(errors.UsageError("every port is off", hint="Give --port.")) == "every port is off. Give --port."
    assert str(errors.UsageError("Is it there?", hint="Look.")) == "Is it there? Look."
    assert str(errors.UsageError("every port is off")) == "every port is off"
