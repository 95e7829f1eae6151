"""The table of statuses."""

from typing import Any

import pytest

from serving.contract.errors import SightlineError
from serving.gateway.http.errors import STATUS, status_of
from tests.contract.error_tree import tree


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: Any) -> None:
    assert 400 <= status_of(kind("x")) <= 599


def test_no_error_repeats_the_status_of_its_parent() -> None:
    for kind, status in STATUS.items():
        if kind is not SightlineError:
            assert status != status_of(kind.__mro__[1]("x")), kind


def test_the_table_of_statuses_names_only_errors_that_exist() -> None:
    assert set(STATUS) <= set(tree())
