import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from sightline import (
    AsyncClient,
    Client,
    Failed,
    NotFound,
    Prediction,
    ServiceUnreachable,
    Unavailable,
    UsageError,
)

from serving.contract.card import Calibration, card_to_json
from serving.contract.errors import ModelNotReady, Overloaded
from tests.clients.shades import SHADES, WITH_IDS, Serve, Service, png


def test_a_picture_gets_its_label_score_and_runners_up(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "night.png"
    path.write_bytes(png(10))
    with Client(service.url) as client:
        found = client.predict(path, model="shades", top=2)
    assert (found.label, found.version, found.model, found.name) == ("black", 1, "shades", "night.png")
    assert found.score == pytest.approx(0.7)
    assert [(label.label, label.index) for label in found.top] == [("black", 0), ("dark", 1)]
    assert found.request_id
    assert repr(found) == "Prediction('black', 0.7000, name='night.png', model='shades' v1)"


def test_the_id_of_a_class_stands_beside_its_label(service: Service) -> None:
    with Client(service.url) as client:
        without = client.predict(png(10), model="shades")
        service.predictor.card = replace(service.predictor.card, labels=WITH_IDS)
        found = client.predict(png(10), model="shades", top=2)
        unsure = client.predict(png(10), model="shades", min_score=0.8)
    assert (without.id, without.top[0].id) == (None, None)
    assert (found.label, found.id, [label.id for label in found.top]) == ("black", "n0", ["n0", "n1"])
    assert (unsure.label, unsure.id, unsure.top[0].id) == (None, None, "n0")


def test_the_score_before_calibration_and_an_uncertain_label_are_told(service: Service) -> None:
    service.predictor.card = replace(service.predictor.card, calibration=Calibration(2.0))

    async def asked_later() -> list[Prediction | Failed]:
        async with AsyncClient(service.url) as client:
            single = await client.predict(png(10), model="shades", min_score=0.8, probabilities="all")
            return [single, *await client.predict_many([png(10)], model="shades", min_score=0.8, probabilities="all")]

    with Client(service.url) as client:
        certain = client.predict(png(10), model="shades", min_score=0.6)
        unsure = client.predict(png(10), model="shades", min_score=0.8, probabilities="all")
        (of_many,) = client.predict_many([png(10)], model="shades", min_score=0.8, probabilities="all")
    assert (certain.label, certain.reason, certain.probabilities) == ("black", None, None)
    assert certain.raw_score == pytest.approx(49 / 52)  # squares of 7, 1, 1 and 1
    assert (unsure.label, unsure.reason, unsure.top[0].label) == (None, "uncertain", "black")
    assert unsure.probabilities == pytest.approx((0.7, 0.1, 0.1, 0.1))
    assert repr(unsure).startswith("Prediction(None, 0.7000, uncertain, name=")
    for other in (of_many, *asyncio.run(asked_later())):
        assert isinstance(other, Prediction)
        assert replace(other, request_id="", name="") == replace(unsure, request_id="", name="")


def test_every_kind_of_picture_gives_the_same_answer(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(200))
    gray = np.full((12, 12), 200, np.uint8)
    with Client(service.url) as client, path.open("rb") as file:
        kinds = [
            path, str(path), path.read_bytes(), bytearray(path.read_bytes()), file, io.BytesIO(png(200)),
            Image.open(path), Image.new("CMYK", (5, 5), (0, 0, 0, 55)), gray, gray[..., None], np.stack([gray] * 3, -1),
        ]  # fmt: skip
        found = client.predict_many(kinds, model="shades")
    assert [outcome.label for outcome in found if isinstance(outcome, Prediction)] == ["white"] * len(kinds)


def test_bad_pictures_fail_alone_and_the_order_is_kept(service: Service, tmp_path: Path) -> None:
    pictures = [png(10), b"not a picture", str(tmp_path / "gone.png"), png(250)] * 20
    with Client(service.url) as client:
        found = client.predict_many(pictures, model="shades")
    assert [row.label if isinstance(row, Prediction) else row.error.code for row in found] == [
        "black", "not_an_image", "unreadable_file", "white",
    ] * 20  # fmt: skip
    assert service.predictor.batches == [16, 16, 8]
    assert "not_an_image" in repr(found[1])


def test_pictures_that_are_all_bad_fail_one_by_one(service: Service) -> None:
    with Client(service.url) as client:
        found = client.predict_many([b"x"], model="shades")
        assert client.predict_many([], model="shades") == []
    assert [type(row) for row in found] == [Failed]


def test_a_request_that_is_too_large_is_sent_in_parts(serve: Serve) -> None:
    service = serve(max_images=3)
    with Client(service.url) as client:
        found = client.predict_many([png(10)] * 8, model="shades")
    assert [row.label for row in found if isinstance(row, Prediction)] == ["black"] * 8
    assert max(service.predictor.batches) <= 3


def test_models_and_their_cards_are_listed(service: Service) -> None:
    with Client(service.url) as client:
        (listed,) = client.models()
        model = client.model("shades")
        with pytest.raises(NotFound):
            client.model("other/../name")
    assert (listed.name, listed.version, listed.card) == ("shades", 1, None)
    assert model.card == json.loads(card_to_json(service.predictor.card))
    assert (model.labels, listed.labels) == (SHADES, ())
    assert repr(model) == "Model('shades', versions: 1 AVAILABLE)"


def test_ready_is_a_question_and_not_an_error(service: Service) -> None:
    with Client(service.url) as client, Client("http://127.0.0.1:1") as nobody:
        assert client.is_ready()
        assert not nobody.is_ready()


def test_a_service_that_is_overloaded_is_asked_again(service: Service) -> None:
    service.predictor.trouble = [Overloaded("full"), ModelNotReady("loading")]
    waits: list[float] = []

    class Impatient(Client):
        def _wait(self, seconds: float) -> None:
            waits.append(seconds)

    with Impatient(service.url) as client:
        assert client.predict(png(1), model="shades").label == "black"
    assert all(wait >= 1.0 for wait in waits)  # what the gateway's Retry-After says
    assert len(waits) == 2


def test_the_last_refusal_is_raised(service: Service) -> None:
    service.predictor.trouble = [Overloaded("full")] * 2
    with Client(service.url, max_retries=0) as client, pytest.raises(Unavailable) as refused:
        client.predict(png(1), model="shades")
    assert (refused.value.status, refused.value.code, refused.value.retry_after_seconds) == (503, "overloaded", 1.0)


def test_no_service_is_a_clear_error() -> None:
    with (
        Client("http://127.0.0.1:1", max_retries=0) as client,
        pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1"),
    ):
        client.models()


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8000", "http://", "http://[::"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="address"):
        Client(url)


def test_options_come_from_the_environment_and_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_URL", "http://elsewhere:9/")
    monkeypatch.setenv("SIGHTLINE_API_KEY", "secret")
    with Client() as client:
        assert client.base_url == "http://elsewhere:9"
        assert client.options.headers() == {"Authorization": "Bearer secret"}
        other = client.with_options(timeout=3, max_retries=7, api_key="other")
        assert other.options.timeout == httpx.Timeout(3)
        assert (other.options.retries.most, other.options.api_key) == (7, "other")
        assert client.options.retries.most == 2
        assert "secret" not in repr(client)


def test_the_asynchronous_client_says_and_hears_the_same(service: Service) -> None:
    async def conversation() -> None:
        async with AsyncClient(service.url) as client:
            with Client(service.url) as sync:
                for pictures in ([png(10)], [png(10), b"x", png(100)]):
                    expected = sync.predict_many(pictures, model="shades")
                    found = await client.predict_many(pictures, model="shades")
                    assert [repr(row) for row in found] == [repr(row) for row in expected]
                assert await client.model("shades") == sync.model("shades")
                assert await client.models() == sync.models()
            assert (await client.predict(png(10), model="shades")).label == "black"
            assert await client.is_ready()
            service.predictor.trouble = [Overloaded("full")]
            with pytest.raises(Unavailable):
                await client.with_options(max_retries=0).predict(png(1), model="shades")
        async with AsyncClient("http://127.0.0.1:1", max_retries=0) as nobody:
            assert not await nobody.is_ready()

    asyncio.run(conversation())


def test_both_clients_have_the_same_methods() -> None:
    public = [{name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]


def test_every_way_to_predict_takes_the_same_arguments() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(TypeError, match="model"):
            client.predict(png(1))  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="treshold"):
            client.predict_many([png(1)], model="shades", treshold=0.5)  # type: ignore[call-arg]
