from pathlib import Path

import pytest

from serving.contract.errors import UsageError
from serving.contract.image_limits import ImageLimits
from serving.gateway.access.keys import new_key
from serving.gateway.settings import Settings, read_settings, require_safe, shown, without_old_names


def config(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "sightline.toml"
    path.write_text(text)
    return {"SIGHTLINE_CONFIG": str(path)}


def test_a_flag_is_stronger_than_the_environment_and_that_than_the_file(tmp_path: Path) -> None:
    environ = config(tmp_path, "port = 1\nthreads = 2\nworkers = 3\n") | {
        "SIGHTLINE_PORT": "10",
        "SIGHTLINE_THREADS": "20",
    }
    given = read_settings(environ, {"port": 100, "host": None})
    settings = given.settings
    assert (settings.port, settings.threads, settings.workers, settings.host) == (100, 20, 3, "127.0.0.1")
    assert [given.sources[name] for name in ("port", "threads", "host")] == ["--port", "SIGHTLINE_THREADS", "default"]
    assert given.sources["workers"].endswith("sightline.toml")


def test_the_flag_config_is_stronger_than_the_variable(tmp_path: Path) -> None:
    environ = config(tmp_path, "port = 1")
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    assert read_settings(environ, {"config": other}).settings.port == 2


def test_settings_survive_their_environment() -> None:
    settings = Settings(port=1234, backend="a:1,b:2", max_images=7)
    assert read_settings(settings.environ()).settings == settings


@pytest.mark.parametrize("name", ["DATA", "URL", "API_KEY", "FACES_URL", "FACES_KEY"])
def test_the_settings_of_other_rooms_are_left_alone(name: str) -> None:
    assert read_settings({f"SIGHTLINE_{name}": "x"}).settings == Settings()


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SIGHTLINE_PROT": "1"}, ("SIGHTLINE_PROT", "Did you mean SIGHTLINE_PORT?")),
        ({"SIGHTLINE_FACES_SOKET": "1"}, ("SIGHTLINE_FACES_SOKET", "SIGHTLINE_FACES_SOCKET")),
        ({"SIGHTLINE_PORT": "x"}, ("port is 'x' (SIGHTLINE_PORT)",)),
        ({"SIGHTLINE_WORKERS": "-1"}, ("workers is '-1'", "greater than or equal to 0")),
        ({"SIGHTLINE_BACKEND": "a:1,b:2", "SIGHTLINE_BACKEND_SOCKET": "/s"}, ("one model server", "names several")),
        ({"SIGHTLINE_LOG_LEVEL": "LOUD"}, ("log_level is 'LOUD'",)),
        ({"SIGHTLINE_CONFIG": "/nowhere/x.toml"}, ("/nowhere/x.toml", "No such file")),
    ],
)
def test_a_setting_that_is_wrong_is_named(environ: dict[str, str], words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(environ)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "Did you mean port?"),
        ("port = ", "is not TOML"),
        ("port = 0", "port is 0"),
        ("[x]\n", "sets x"),
        ("[faces]\ntolerence = 1", "[faces] sets tolerence"),
        ("faces = 3", "sets faces to 3"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=r"sightline\.toml") as caught:
        read_settings(config(tmp_path, text))
    assert words in str(caught.value)


def test_what_is_shown_can_be_used_as_a_file(tmp_path: Path) -> None:
    environ = {"SIGHTLINE_PORT": "9", "SIGHTLINE_FACES_TOLERANCE": "0.5"}
    given = read_settings(environ, {"model_names": 'a"b\\c', "faces_preload": True})
    text = shown(given)
    assert "[SIGHTLINE_PORT]\nport = 9" in text
    assert "[SIGHTLINE_FACES_TOLERANCE]\ntolerance = 0.5" in text
    again = read_settings(config(tmp_path, text))
    assert (again.settings, again.faces) == (given.settings, given.faces)


def test_faces_are_set_like_everything_else(tmp_path: Path) -> None:
    environ = config(tmp_path, "port = 1\n[faces]\ntolerance = 0.4\nmax_side = 1600\nwaiting = 2\nencoder = 'dlib'\n")
    environ |= {"SIGHTLINE_FACES_MAX_SIDE": "400", "SIGHTLINE_FACES_WAITING": "3"}
    given = read_settings(environ, {"faces_waiting": 4, "faces_preload": None})
    faces = given.faces
    assert (faces.tolerance, faces.max_side, faces.waiting, faces.encoder) == (0.4, 400, 4, "dlib")
    assert given.sources["faces.tolerance"].endswith("sightline.toml")
    assert given.sources["faces.max_side"] == "SIGHTLINE_FACES_MAX_SIDE"
    assert given.sources["faces.preload"] == "default"
    again = read_settings(given.environ())
    assert (again.settings, again.faces) == (given.settings, given.faces)


def test_old_name_of_a_setting_still_works_and_warns_of_the_new_one(tmp_path: Path) -> None:
    for environ, words in (
        ({"SIGHTLINE_MODELS": "a,b"}, "SIGHTLINE_MODELS is now called SIGHTLINE_MODEL_NAMES"),
        (config(tmp_path, "models = 'a,b'"), "models is now called model_names"),
    ):
        given = read_settings(environ)
        assert given.settings.listed_models == ("a", "b")
        (warning,) = given.warnings
        assert words in warning
    both = read_settings({"SIGHTLINE_MODELS": "old", "SIGHTLINE_MODEL_NAMES": "new"})
    assert both.settings.model_names == "new"
    assert read_settings({"SIGHTLINE_MODEL_NAMES": "new"}).warnings == ()
    assert without_old_names({"SIGHTLINE_MODELS": "a", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_image_limits_have_one_place_for_their_defaults() -> None:
    assert Settings().image_limits == ImageLimits()


@pytest.mark.parametrize(("cpus", "processes"), [(1, 1), (2, 2), (3, 2), (4, 2), (8, 4), (16, 8), (64, 8)])
def test_the_machine_decides_how_many_processes_there_are_where_nobody_does(
    cpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.gateway.settings.usable_cpus", lambda: cpus)
    assert Settings().processes == processes
    assert Settings(workers=3).processes == 3


@pytest.mark.parametrize("text", ["", "# nobody", "nonsense"])
def test_a_file_without_keys_is_refused_at_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(UsageError, match="keys"):
        require_safe(Settings(host="0.0.0.0", api_keys_file=str(tmp_path / "keys")))
    with pytest.raises(UsageError, match="nowhere"):
        require_safe(Settings(api_keys_file=str(tmp_path / "nowhere")))


def test_a_key_is_hidden_wherever_settings_are_shown() -> None:
    _, entry = new_key("shop", ["predict"])
    assert entry.split(":")[1] not in shown(read_settings({"SIGHTLINE_API_KEYS": entry}))
    assert entry.split(":")[1] not in repr(Settings(api_keys=entry))


@pytest.mark.parametrize("entry", ["secret", "a:b:predict", f"a:{'0' * 64}:root", f":{'0' * 64}:predict", "a:b"])
def test_a_key_that_cannot_be_read_is_refused_at_start_without_showing_it(entry: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings({"SIGHTLINE_API_KEYS": entry})
    assert "NAME:SHA256:SCOPE" in str(caught.value)
    assert entry not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_open_address_wants_keys_or_the_word(host: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        require_safe(Settings(host=host))
    require_safe(Settings(host=host, insecure=True))
    require_safe(Settings(host=host, api_keys=new_key("a", ["predict"])[1]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_wants_neither(host: str) -> None:
    require_safe(Settings(host=host))
