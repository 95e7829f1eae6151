"""The option --augment."""

import pytest

from export.data.augmentation import parse_augmentation
from serving.contract.errors import UsageError


def test_augment_takes_names_of_the_table_only() -> None:
    assert parse_augmentation(None, {"flip": 1.0}) == {"flip": 1.0}
    assert parse_augmentation("zoom", {"flip": 1.0, "zoom": 0.3}) == {"zoom": 0.3}
    assert parse_augmentation("none", {"flip": 1.0}) == {}
    with pytest.raises(UsageError, match="sharpen"):
        parse_augmentation("flip,sharpen", {})
