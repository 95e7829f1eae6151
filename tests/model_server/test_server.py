"""The gateway's side of TLS against the model server's --ssl_config_file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.backend.backends import Backends, Tls
from serving.backend.grpc_predictor import GrpcPredictor
from serving.contract.errors import ModelServerUnavailable
from tests.backend.certificates import Authority
from tests.model_server.server_process import START_SECONDS, free_port, launch

pytestmark = pytest.mark.integration


def eventually(ask: Callable[[], Any]) -> Any:
    """Its answer, once the server listens."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return ask()
        except ModelServerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_gateway_with_a_certificate_is_served_and_one_without_is_not(models_dir: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    server, gateway = authority.sign("localhost"), authority.sign("gateway")
    parts = {"server_key": server.key, "server_cert": server.certificate, "custom_ca": authority.ca}
    lines = ['{}: "{}"'.format(name, path.read_text().replace("\n", "\\n")) for name, path in parts.items()]
    (tmp_path / "ssl.txt").write_text("\n".join([*lines, "client_verify: true"]))
    port = free_port()
    base = models_dir / "half_plus_two"
    flags = ["--model_name=secret", f"--model_base_path={base}", f"--ssl_config_file={tmp_path / 'ssl.txt'}"]
    process = launch(tmp_path / "log", *flags, f"--port={port}")
    known = Backends([f"localhost:{port}"], tls=Tls(authority.ca, gateway.certificate, gateway.key))
    unknown = Backends([f"localhost:{port}"], tls=Tls(authority.ca))
    try:
        assert [state.version for state in eventually(lambda: GrpcPredictor(known).versions("secret"))] == [123]
        with pytest.raises(ModelServerUnavailable):
            GrpcPredictor(unknown).versions("secret")
    finally:
        known.close()
        unknown.close()
        process.terminate()
        assert process.wait(20) == 0
