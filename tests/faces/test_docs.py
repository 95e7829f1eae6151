"""Settings, reasons and commands of faces are documented."""

from pathlib import Path

from clients.faces import faces
from serving.faces.settings import FaceSettings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "faces.md").read_text()


def test_every_setting_is_documented() -> None:
    for name, field in FaceSettings.model_fields.items():
        assert f"| `SIGHTLINE_FACES_{name.upper()}` |" in PAGE
        assert str(field.description) in PAGE


def test_every_reason_of_the_coach_is_documented() -> None:
    folder = Path(__file__).parent.parent.parent / "serving" / "faces"
    source = "".join((folder / name).read_text() for name in ("enrolment.py", "face.py"))
    codes = {line.split('Reason("')[1].split('"')[0] for line in source.splitlines() if 'Reason("' in line}
    assert len(codes) == 9
    assert all(f"`{code}`" in PAGE for code in codes)


def test_every_command_has_help() -> None:
    assert set(faces.commands) >= {"enrol", "identify", "compare", "list", "forget", "advise", "export", "import"}
    assert all(command.help for command in faces.commands.values())
