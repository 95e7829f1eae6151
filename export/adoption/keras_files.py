"""Load a .keras or .h5 file, of Keras 3 or 2, with layers of its author's own where their code is given."""

import contextlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Collection
from pathlib import Path

from export.adoption.keras2 import readable_by_keras3, registered_names, stored_loss
from export.adoption.loaded_model import Activation, LoadedModel, require_any_batch, require_one_input, the_output
from export.networks.keras_graph import KerasModel, last_operation
from serving.contract.errors import InvalidData

UNKNOWN_CLASS = re.compile(
    r"Could not locate \w+ '([^']+)'|Unknown \w+: '?([\w>]+)'?|Could not deserialize \w+ '([^']+)'"
)
KERAS2_OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
WAY_OUT = "a SavedModel needs no code: run `model.export(FOLDER)` where the model was made, and adopt FOLDER."
ACTIVATIONS: dict[str, Activation] = {"softmax": "softmax", "sigmoid": "sigmoid", "linear": "linear"}


def load_keras_file(path: Path, code: Path | None, output_name: str | None) -> LoadedModel:
    """Load a .keras or .h5 file without executing code in it.

    code: a Python file of the model's own layers, which is run. Raises InvalidData, UsageError.
    """
    import tensorflow as tf

    if code is not None:
        register_classes(code, registered_names(path))
    model = _loaded(path)
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise InvalidData(
            f"{path} holds a {type(model).__name__} whose inputs are not known before it runs.", hint=_sentence(WAY_OUT)
        )
    require_one_input([tensor.name for tensor in model.inputs])
    tensor = model.inputs[0]
    require_any_batch(tensor.shape[0])
    core = _with_one_output(model, output_name)
    return LoadedModel(
        call=lambda image: tf.cast(core(image, training=False), tf.float32),
        shape=tuple(tensor.shape[1:]),
        dtype=str(tensor.dtype),
        activation=activation_of(core),
        loss=stored_loss(path),
        parameters=int(core.count_params()),
        core=core,
    )


def register_classes(path: Path, registered: Collection[str] = ()) -> None:
    """Run a Python file and make its classes and functions known to Keras. Raises InvalidData where it fails.

    registered: names such as "my>Scale", which then stand for the file's Scale, decorated or not.
    """
    import keras

    spec = importlib.util.spec_from_file_location(f"sightline_import_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidData(f"--import {path} is not a Python file.", hint="Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # the file may raise whatever it likes
        raise InvalidData(f"--import {path} fails: {type(exc).__name__}: {exc}.") from exc
    own = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == spec.name and (inspect.isclass(value) or inspect.isfunction(value))
    }
    aliases = {name: own[name.rpartition(">")[2]] for name in registered if name.rpartition(">")[2] in own}
    keras.saving.get_custom_objects().update({**own, **aliases})


def activation_of(model: KerasModel) -> Activation | None:
    """Read the last activation of a model with one output; None where it is another one, or hidden in own code."""
    operation = last_operation(model)
    kind = type(operation).__name__.lower()
    if kind in ("softmax", "sigmoid"):
        return ACTIVATIONS[kind]
    return ACTIVATIONS.get(getattr(getattr(operation, "activation", None), "__name__", ""))


def _loaded(path: Path) -> KerasModel:
    import keras

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(readable_by_keras3(path))
            return keras.models.load_model(file, compile=False, safe_mode=True)
        except Exception as exc:  # a zip, an HDF5 file, a config of any version: each fails with its own exception
            raise _refusal(path, str(exc)) from exc


def _refusal(path: Path, error: str) -> InvalidData:
    """Say in which way a file cannot be loaded, and what to do about it. error: Keras's."""
    unknown = UNKNOWN_CLASS.search(error)
    name = next((group for group in unknown.groups() if group), "").rpartition(">")[2] if unknown else ""
    if name in KERAS2_OPERATIONS:
        return InvalidData(
            f"{path} holds operations between its layers ({name}), which Keras 3 cannot read from a file of Keras 2.",
            hint="Save it as a SavedModel where it was made, with Keras 2: model.save(FOLDER). Then adopt FOLDER.",
        )
    if "`Lambda` layer" in error or name == "Lambda":
        return InvalidData(
            f"{path} has a Lambda layer: Python code inside the file, which Sightline does not run.",
            hint=_sentence(WAY_OUT),
        )
    if name:
        return InvalidData(
            f"{path} uses {name}, which is not part of Keras.",
            hint=f"Name the Python file that defines it: --import my_layers.py. Or {WAY_OUT}",
        )
    if "No model config found" in error or "No model found in config" in error:
        return InvalidData(
            f"{path} holds weights without their network.", hint="Save the whole model: model.save('model.keras')."
        )
    return InvalidData(f"{path} is not a model that Keras can load: {_first_line(error)}.")


def _first_line(error: str) -> str:
    return (error.strip().splitlines() or ["it gives no reason"])[0].rstrip(".")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _with_one_output(model: KerasModel, wanted: str | None) -> KerasModel:
    import keras

    names = list(getattr(model, "output_names", None) or [tensor.name for tensor in model.outputs])
    chosen = model.outputs[names.index(the_output(names, wanted))]
    return model if len(names) == 1 else keras.Model(model.inputs, chosen, name=model.name)
