import io
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from serving.gateway.access.keys import SCOPES, new_key
from serving.gateway.app import create_app
from serving.gateway.http.openapi import scope_of
from serving.gateway.settings import Settings
from tests.gateway.conftest import ColorPredictor
from tests.gateway.specification import never_asked


@pytest.fixture
def keyed(predictor: Any) -> tuple[FlaskClient, dict[str, str]]:
    """The application with a key for each scope, and the keys."""
    made = {scope: new_key(f"of {scope}", [scope]) for scope in SCOPES}
    settings = Settings(api_keys=",".join(entry for _, entry in made.values()))
    app = create_app(settings, predictor, backend=never_asked)
    return app.test_client(), {scope: key for scope, (key, _) in made.items()}


def ask(client: FlaskClient, key: str | None, method: str = "GET", path: str = "/models") -> tuple[int, str]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    response = client.open(path, method=method, headers=headers)
    return response.status_code, (response.get_json(silent=True) or {}).get("code", "")


def test_without_a_key_only_probes_are_answered(keyed: tuple[FlaskClient, dict[str, str]]) -> None:
    client, _ = keyed
    assert ask(client, None) == (401, "unauthenticated")
    assert ask(client, "wrong") == (401, "unauthenticated")
    assert ask(client, None, path="/metrics") == (401, "unauthenticated")
    assert ask(client, None, path="/nowhere") == (401, "unauthenticated")
    assert client.get("/models").headers["WWW-Authenticate"] == "Bearer"
    assert ask(client, None, path="/healthz") == (200, "")
    assert ask(client, None, path="/readyz") == (200, "")


@pytest.mark.parametrize("scheme", ["", "Basic ", "bearer"])
def test_a_key_without_its_scheme_is_none(keyed: tuple[FlaskClient, dict[str, str]], scheme: str) -> None:
    client, keys = keyed
    response = client.get("/models", headers={"Authorization": f"{scheme}{keys['admin']}"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/models", {"predict", "admin"}),
        ("GET", "/v2/models", {"predict", "admin"}),
        ("POST", "/predict/colors", {"predict", "admin"}),
        ("GET", "/faces/people", {"faces", "admin"}),
        ("POST", "/faces/identify", {"faces", "admin"}),
        ("POST", "/faces/people/x", {"admin"}),
        ("DELETE", "/faces/people/x", {"admin"}),
        ("GET", "/metrics", {"metrics", "admin"}),
        ("GET", "/V1/models/colors", {"predict", "admin"}),
        ("GET", "/nowhere", set(SCOPES)),
        ("GET", "/faces/nowhere", set(SCOPES)),
        ("GET", "/predict/colors", set(SCOPES)),  # 405
    ],
)
def test_a_key_may_do_what_its_scopes_say(
    keyed: tuple[FlaskClient, dict[str, str]], method: str, path: str, allowed: set[str]
) -> None:
    client, keys = keyed
    answers = {scope: ask(client, key, method, path) for scope, key in keys.items()}
    refused = {scope for scope, (status, code) in answers.items() if (status, code) == (403, "forbidden")}
    assert refused == set(keys) - allowed


def test_unknown_path_is_404_for_every_key(keyed: tuple[FlaskClient, dict[str, str]]) -> None:
    client, keys = keyed
    for path in ("/nowhere", "/faces/nowhere", "/metrics/x", "/v2/nowhere"):
        assert {ask(client, key, path=path) for key in keys.values()} == {(404, "unknown_route")}


def test_every_route_declares_its_scope() -> None:
    app = create_app(Settings(), ColorPredictor(), backend=never_asked)
    scopes = {rule.rule: scope_of(app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules()}
    assert [rule for rule, scope in scopes.items() if scope is None] == []
    assert {rule for rule, scope in scopes.items() if scope == "open"} == {
        "/", "/page/<name>", "/docs", "/openapi.json", "/healthz", "/readyz",
    }  # fmt: skip


@pytest.mark.parametrize("with_keys", [False, True])
def test_route_without_a_scope_is_refused_to_everybody(predictor: Any, with_keys: bool) -> None:
    key, entry = new_key("owner", ["admin"])
    app = create_app(Settings(api_keys=entry if with_keys else ""), predictor)
    app.add_url_rule("/undeclared", view_func=lambda: "secret")
    assert ask(app.test_client(), key, path="/undeclared") == (403, "forbidden")


def test_past_the_bound_a_request_is_refused_at_once_and_probes_are_not(predictor: Any, red: bytes) -> None:
    held, entered = threading.Event(), threading.Semaphore(0)
    plain = predictor.predict

    def slow(*args: Any) -> Any:
        entered.release()
        assert held.wait(10)
        return plain(*args)

    predictor.predict = slow
    app = create_app(Settings(threads=2), predictor)

    def post() -> int:
        return app.test_client().post("/predict/colors", data={"image": (io.BytesIO(red), "a")}).status_code

    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(post())) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert entered.acquire(timeout=10)
    started = time.perf_counter()
    response = app.test_client().post("/predict/colors", data={"image": (io.BytesIO(red), "a")})
    assert time.perf_counter() - started < 1
    assert (response.status_code, response.get_json()["code"]) == (503, "overloaded")
    assert response.headers["Retry-After"] == "1"
    assert "SIGHTLINE_THREADS" in response.get_json()["detail"]
    assert app.test_client().get("/healthz").status_code == 200
    held.set()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
    assert [post() for _ in range(3)] == [200] * 3  # every slot came back


def test_a_request_that_fails_gives_its_slot_back(predictor: Any, red: bytes) -> None:
    client = create_app(Settings(threads=1), predictor).test_client()
    predictor.fails = ZeroDivisionError("oops")
    for _ in range(3):
        response = client.post("/predict/colors", data=red, content_type="image/png")
        assert response.status_code == 500


def origins(predictor: Any, allowed: str) -> Callable[..., Any]:
    client = create_app(Settings(cors_origins=allowed), predictor).test_client()
    return client.open


def test_only_allowed_origins_may_read_answers(predictor: Any) -> None:
    ask = origins(predictor, "https://a.example, https://b.example")
    name = "Access-Control-Allow-Origin"
    assert ask("/models", headers={"Origin": "https://a.example"}).headers[name] == "https://a.example"
    refused = ask("/models", headers={"Origin": "https://evil.example"})
    assert name not in refused.headers
    assert "Origin" in refused.headers["Vary"]
    assert name not in origins(predictor, "")("/models", headers={"Origin": "https://a.example"}).headers
    assert origins(predictor, "*")("/models", headers={"Origin": "https://x"}).headers[name] == "https://x"


def test_a_preflight_is_answered_without_a_key(predictor: Any) -> None:
    settings = Settings(cors_origins="https://a.example", api_keys=new_key("a", ["predict"])[1])
    response = (
        create_app(settings, predictor)
        .test_client()
        .options("/predict/colors", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
    )
    assert response.status_code == 204
    assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


def test_answers_are_not_for_frames_or_guesses(client: FlaskClient) -> None:
    headers = client.get("/nowhere").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
