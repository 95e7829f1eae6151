"""The settings of faces, from the environment and from the table of a configuration file."""

import pytest

from serving.contract.errors import UsageError
from serving.faces.settings import FaceSettings, read_face_settings


def test_defaults_hold_where_nothing_is_given() -> None:
    assert read_face_settings({}) == FaceSettings()


def test_environment_goes_before_the_table_of_the_file() -> None:
    settings = read_face_settings(
        {"SIGHTLINE_FACES_TOLERANCE": "0.5"}, {"tolerance": 0.4, "max_side": 1600, "preload": True}
    )
    assert (settings.tolerance, settings.max_side, settings.preload) == (0.5, 1600, True)


def test_settings_reach_another_process_through_its_environment() -> None:
    settings = FaceSettings(url="postgresql://host/db", processes=3, tolerance=0.45, preload=True)
    assert read_face_settings(settings.environ()) == settings


@pytest.mark.parametrize(
    ("environ", "table", "text"),
    [
        ({"SIGHTLINE_FACES_WAITING": "-1"}, {}, r"SIGHTLINE_FACES_WAITING is '-1'"),
        ({}, {"waiting": -1}, r"faces\.toml \[faces\]\.waiting is -1"),
        ({}, {"max_sides": 800}, r"faces\.toml \[faces\] sets max_sides, which does not exist"),
    ],
)
def test_value_that_is_not_allowed_is_named_with_its_source(
    environ: dict[str, str], table: dict[str, object], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        read_face_settings(environ, table, source="faces.toml [faces]")


def test_key_is_not_shown_in_an_error() -> None:
    with pytest.raises(UsageError, match=r"\*\*\*") as raised:
        read_face_settings({}, {"key": 12345})
    assert "12345" not in raised.value.detail
