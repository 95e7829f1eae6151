"""Behind a proxy that serves the gateway under a path."""

from typing import Any

import pytest

from serving.gateway.app import create_app
from serving.gateway.settings import Settings
from tests.gateway.conftest import ColorPredictor


def ask(proxies: int, path: str, prefix: str, **more: str) -> Any:
    client = create_app(Settings(trusted_proxies=proxies), ColorPredictor()).test_client()
    return client.get(path, headers={"X-Forwarded-Prefix": prefix, **more})


def server_of(proxies: int, prefix: str) -> str:
    (server,) = ask(proxies, "/openapi.json", prefix).get_json()["servers"]
    return str(server["url"])


@pytest.mark.parametrize(
    ("proxies", "prefix", "expected"),
    [
        (0, "/ml", "/"),  # nobody is trusted
        (1, "/ml", "/ml"),
        (1, "/ml/", "/ml"),
        (1, "/", "/"),
        (1, "/team%20a/vision", "/team%20a/vision"),
        (1, "/forged, /ml", "/ml"),
        (2, "/forged, /ml, /inner", "/ml"),
        (2, "/ml", "/ml"),  # the inner proxy passed it on
        (1, "//evil.example", "/"),
        (1, "https://evil.example", "/"),
        (1, '/"><script>', "/"),
        (1, "ml", "/"),
    ],
)
def test_the_specification_names_the_path_that_a_trusted_proxy_names(proxies: int, prefix: str, expected: str) -> None:
    assert server_of(proxies, prefix) == expected


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_have_the_path_as_their_base(path: str) -> None:
    assert '<base href="/ml/">' in ask(1, path, "/ml").text
    assert "<base" not in ask(0, path, "/ml").text
    assert "<base" not in ask(1, path, "").text


def test_redirects_and_problems_keep_the_path() -> None:
    redirected = ask(1, "/models//colors", "/ml", **{"X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https"})
    assert redirected.status_code == 308
    assert redirected.headers["Location"] in ("/ml/models/colors", "https://example.org/ml/models/colors")
    assert ask(1, "/nowhere", "/ml").get_json()["instance"] == "/ml/nowhere"


def test_the_application_answers_under_its_own_paths() -> None:
    assert ask(1, "/models/colors", "/ml").get_json()["name"] == "colors"
