import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sightline import Client, UsageError, calls
from sightline.calls import Call

from clients.doctor import (
    STAGES,
    Target,
    _model_servers,
    _wanted,
    doctor,
    find_version,
    over_http,
    preprocessed,
    recorded,
    run_stages,
)
from serving.contract.card import CARD_FILE, card_to_json
from serving.contract.errors import ModelError, ModelFailed
from serving.contract.golden import GoldenExamples, write_golden
from tests.clients.shades import SIDE, Service, golden_card, png, shade_probabilities

GRAYS = (0, 100, 250)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with version 1 of `shades`, as export writes it, less the SavedModel."""
    version = tmp_path / "models" / "shades" / "1"
    tensors = np.stack([np.full((SIDE, SIDE, 1), gray, np.uint8) for gray in GRAYS])
    write_golden(version, GoldenExamples(tuple(png(gray) for gray in GRAYS), tensors, shade_probabilities(tensors)))
    (version / CARD_FILE).write_text(card_to_json(golden_card(len(GRAYS))))
    return tmp_path / "models"


@pytest.fixture
def target(models: Path, service: Service) -> Target:
    return find_version("shades", models, None, Client(service.url, max_retries=0), "127.0.0.1:1")


def test_a_healthy_model_agrees_at_every_stage(target: Target) -> None:
    assert recorded(target) <= 1e-6
    assert preprocessed(target) == 0
    assert over_http(target) <= 1e-6


def test_the_first_stage_that_differs_is_named(models: Path, service: Service) -> None:
    service.predictor.version, service.predictor.inverted_from = 1, 1
    arguments = [
        "--model",
        "shades",
        "--models",
        str(models),
        "--url",
        service.url,
        "--grpc",
        "127.0.0.1:1",
        "--no-reload",
    ]
    result = CliRunner().invoke(doctor, [*arguments, "--json"])
    assert result.exit_code == 1
    report = json.loads(result.output)
    stages = {row["stage"]: row for row in report["stages"]}
    assert list(stages) == list(STAGES)
    assert (stages["recorded"]["ok"], stages["preprocess"]["ok"]) == (True, True)
    assert stages["HTTP"]["difference"] == pytest.approx(0.6)
    text = CliRunner().invoke(doctor, arguments)
    assert "HTTP        DIFFERS  largest difference 6.00e-01 (atol 1e-05)" in text.output
    assert "is the first stage that differs" in text.output


def test_preprocessing_that_changed_is_noticed(target: Target) -> None:
    target.golden.tensors[0, 0, 0, 0] += 1  # type: ignore[operator]
    assert preprocessed(target) == 1
    finding = next(row for row in run_stages(target) if row.stage == "preprocess")
    assert (finding.ok, finding.atol) == (False, 0.0)


def test_a_record_that_does_not_fit_its_card_is_refused(models: Path, target: Target) -> None:
    (models / "shades" / "1" / CARD_FILE).write_text(card_to_json(golden_card(len(GRAYS) + 1)))
    shorter = find_version("shades", models, 1, target.client, "127.0.0.1:1")
    with pytest.raises(ModelFailed, match="the card says 4"):
        recorded(shorter)


def test_a_missing_version_is_said(models: Path, service: Service, tmp_path: Path) -> None:
    client = Client(service.url, max_retries=0)
    with pytest.raises(UsageError, match="no version of 'nobody'"):
        find_version("nobody", models, None, client, "")
    with pytest.raises(UsageError, match="Version 7"):
        find_version("shades", models, 7, client, "")
    assert isinstance(CliRunner().invoke(doctor, ["--models", str(tmp_path)]).exception, UsageError)
    (models / "shades" / "1" / "assets.extra" / "golden" / "answers.npz").unlink()
    with pytest.raises(ModelError, match="golden"):
        find_version("shades", models, None, client, "")
    client.close()


def test_all_means_every_classifier_and_leaves_the_face_encoder_out(models: Path) -> None:
    (models / "face-encoder" / "1").mkdir(parents=True)
    assert _wanted((), True, models) == ["shades"]


def test_the_model_server_is_the_one_that_the_service_names(models: Path, service: Service) -> None:
    target = find_version("shades", models, None, Client(service.url, max_retries=0), None)
    assert _model_servers(target) == ["127.0.0.1:8500"]  # of the service's settings
    assert _model_servers(replace(target, grpc_target="127.0.0.1:1")) == ("127.0.0.1:1",)


def test_a_socket_that_cannot_be_reached_is_skipped(
    models: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "backends", lambda: Call("GET", "/healthz", lambda _: ["unix:/nowhere/grpc"]))
    target = find_version("shades", models, None, Client(service.url, max_retries=0), None, reload=False)
    found = {row.stage: row for row in run_stages(target)}
    assert found["gRPC"].ok is None
    assert "unix:/nowhere/grpc" in found["gRPC"].note
