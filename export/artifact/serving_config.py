"""TensorFlow Serving's configuration of a folder of models, `models/serving-config/`, refreshed by each publication.

Edits of models.config stay: a model's version policy and labels, and the path under which the server sees the folder.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.contract.errors import UsageError
from serving.contract.versions import SERVING_CONFIG, version_dirs

BASE = "/models"  # path of the folder of models in the containers
PLATFORM = "tensorflow"
MODEL_CONFIG, BATCHING, MONITORING, GATEWAY = "models.config", "batching.config", "monitoring.config", "gateway.env"
HEADER = "# Written by sightline export; policies and labels that you add are kept, comments are not.\n"

# No request is refused for its size (larger ones are split), and none waits while a thread is free.
BATCHING_TEXT = """\
# Written only where it is missing, so it is yours to tune. num_batch_threads: the number of CPUs, unless set.
max_batch_size { value: 1024 }
max_execution_batch_size { value: 32 }
enable_large_batch_splitting { value: true }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 100 }
"""
MONITORING_TEXT = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def refresh(models: Path, base: str | None = None) -> Path:
    """Write the files for all models that have a version. Returns their folder.

    base: absolute path under which the server sees `models`; None: as in models.config, or /models.
    Raises UsageError for a base that is not absolute, and for an unreadable models.config.
    """
    if base is not None and not base.startswith("/"):
        raise UsageError(
            f"--base is {base!r}, which is not an absolute path.",
            hint="TensorFlow Serving needs one, such as /models.",
        )
    folder = models / SERVING_CONFIG
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        config = _merged(_read(folder / MODEL_CONFIG), served_names(models), base)
        _write(folder / MODEL_CONFIG, HEADER + text_format.MessageToString(config))
        names = ",".join(model.name for model in config.model_config_list.config)
        _write(folder / GATEWAY, f"{HEADER}SIGHTLINE_MODEL_NAMES={names}\n")
        for name, text in ((BATCHING, BATCHING_TEXT), (MONITORING, MONITORING_TEXT)):
            if not (folder / name).exists():
                _write(folder / name, text)
    return folder


def served_names(models: Path) -> list[str]:
    """The models of a folder that have a version, sorted by name."""
    return sorted(path.name for path in models.iterdir() if version_dirs(path)) if models.is_dir() else []


def _read(path: Path) -> Any:
    """Read a ModelServerConfig; an empty one where there is no file. Raises UsageError."""
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    if not path.exists():
        return config
    try:
        text_format.Parse(path.read_text("utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} cannot be read: {exc}.", hint="Repair or remove it; a new one is written.") from exc
    if config.WhichOneof("config") == "custom_model_config":
        raise UsageError(f"{path} holds a custom_model_config.", hint="Remove it, or keep your file elsewhere.")
    return config


def _merged(old: Any, names: list[str], base: str | None) -> Any:
    """Make a ModelServerConfig of exactly these models; settings of models that `old` knows are kept."""
    known = {model.name: model for model in old.model_config_list.config}
    base = base or _base_of(known) or BASE
    config = type(old)()
    config.model_config_list.SetInParent()
    for name in names:
        model = config.model_config_list.config.add()
        if name in known:
            model.CopyFrom(known[name])
        model.name, model.base_path = name, f"{base.rstrip('/')}/{name}"
        if not model.model_type:
            model.model_platform = PLATFORM
    return config


def _base_of(known: dict[str, Any]) -> str | None:
    return next((model.base_path.rpartition("/")[0] or "/" for model in known.values()), None)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that two exports that end together are both listed in the file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, text: str) -> None:
    """Replace the file with one rename: TensorFlow Serving may be reading it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".tmp-", encoding="utf-8", delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)  # readable by a server that runs as another user
    Path(file.name).replace(path)
