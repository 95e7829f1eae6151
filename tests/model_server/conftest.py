"""Models that one can compute by hand, and a server that serves them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

if TYPE_CHECKING:
    from tests.model_server.server_process import ModelServer


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that no test changes."""
    pytest.importorskip("tensorflow", reason="the extra `tensorflow` is not installed")
    from tests.model_server import saved_models

    root = tmp_path_factory.mktemp("models")
    saved_models.write(root / "half_plus_two" / "00000123", saved_models.half_plus(2))
    saved_models.write(root / "two_inputs" / "1", saved_models.two_inputs)
    saved_models.write(root / "echo" / "1", saved_models.echo)
    saved_models.write(root / "dense" / "1", saved_models.dense)
    saved_models.write(root / "picture" / "1", saved_models.picture)
    saved_models.write(root / "slow" / "1", saved_models.slow)
    return root


@pytest.fixture(scope="session")
def server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator["ModelServer"]:
    """One server for all tests that only ask."""
    from tests.model_server.server_process import running

    with running(tmp_path_factory.mktemp("server"), "--models", models_dir) as ready:
        for path in models_dir.glob("*/*"):
            ready.wait_for(path.parent.name, int(path.name))
        yield ready


@pytest.fixture
def refused() -> Callable[..., tuple[str, str]]:
    """Call something that must fail: the code's name and the message."""

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            function(*args, **kwargs)
        return caught.value.code().name, caught.value.details()

    return call
