"""The clients against the whole house: the model server, gunicorn, and a model that was trained."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from sightline import Client, NotFound, Unavailable
from sightline.grpc import GrpcClient

from clients.batch.compare import compare_models
from clients.batch.score import score
from clients.batch.writers import read_rows
from serving.contract.golden import read_golden
from serving.contract.versions import version_dirs
from tests.e2e.conftest import ROOT, Service
from tests.e2e.exported_models import Exported


@pytest.fixture
def pictures(exported: Exported) -> list[bytes]:
    return [*read_golden(version_dirs(exported.models / "digits")[-1]).pictures, b"not a picture"]


def test_the_doctor_finds_every_stage_well(service: Service) -> None:
    command = [sys.executable, "-m", "clients", "doctor", "--model", "digits", "--models", str(service.models)]
    more = ["--url", service.url, "--grpc", service.grpc, "--json"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["first_bad"] is None
    assert [row["ok"] for row in report["stages"]] == [True] * 5


def test_grpc_and_http_answer_the_same_to_the_bit(service: Service, pictures: list[bytes]) -> None:
    with Client(service.url) as over_http, GrpcClient(service.grpc) as over_grpc:
        by_http = over_http.predict_many(pictures, model="digits", top=10)
        by_grpc = over_grpc.predict_many(pictures, model="digits", top=10)
        plain = [repr(row) if not hasattr(row, "top") else replace(row, request_id="") for row in by_http]
        assert [repr(row) if not hasattr(row, "top") else row for row in by_grpc] == plain
        single = [client.predict(pictures[0], model="digits").top for client in (over_http, over_grpc)]
        assert single[0] == single[1]
        assert over_grpc.model("digits") == over_http.model("digits")
        assert over_grpc.models() == over_http.models()
        assert over_grpc.is_ready()
        with pytest.raises(NotFound, match="nobody"):
            over_grpc.predict(pictures[0], model="nobody")
        with pytest.raises(NotFound, match="99"):
            over_grpc.predict(pictures[0], model="digits", version=99)


def test_a_model_server_that_is_not_there_is_said(pictures: list[bytes]) -> None:
    with GrpcClient("127.0.0.1:1", timeout=2) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable):
            client.predict(pictures[0], model="digits")


def test_scored_labels_are_those_of_single_pictures(service: Service, pictures: list[bytes], tmp_path: Path) -> None:
    for number, picture in enumerate(pictures):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.png").write_bytes(picture)
    arguments = [str(tmp_path / "in"), "--model", "digits", "--out", str(tmp_path / "o.jsonl"), "--url", service.url]
    assert CliRunner().invoke(score, arguments).exit_code == 1  # one is no picture
    rows = list(read_rows(str(tmp_path / "o.jsonl")))
    assert len(rows) == len(pictures)
    with Client(service.url) as client:
        for row in rows:
            if row.status == "ok":
                single = client.predict(row.path, model="digits")
                assert row.label == single.label
                assert row.score == pytest.approx(single.score, abs=1e-5)


def test_a_model_agrees_with_itself(service: Service, pictures: list[bytes], tmp_path: Path) -> None:
    for number, picture in enumerate(pictures[:-1]):
        (tmp_path / f"{number}.png").write_bytes(picture)
    result = CliRunner().invoke(compare_models, ["digits", "digits", str(tmp_path), "--url", service.url, "--json"])
    assert json.loads(result.output)["agreement"] == 1.0
