"""Models of every form are adopted and answer as before, or are refused with the way that works."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from serving.contract.card import read_card
from serving.contract.errors import InvalidData, SightlineError, UsageError
from tests.export.adoption.own_models import nested, network, save_as_keras2, small
from tests.export.families.small_model import read_golden_of

keras = pytest.importorskip("keras")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Keras warns of old files
]

L = keras.layers
Export = Callable[..., Path]
LAYERS = """
import keras

class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return 2 * x * self.factor
"""


@pytest.fixture(autouse=True)
def _without_classes_of_other_tests() -> Iterator[None]:
    kept = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(kept)


def save_function(path: Path, function: Any, *shape: int | None, dtype: str = "float32", spec: Any = None) -> Path:
    """Save a SavedModel with one signature: x (n, *shape) to p (n, 3)."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32))
    signature = tf.function(
        lambda x: {"p": tf.nn.softmax(function(x) @ module.weights)},
        [spec or tf.TensorSpec([None, *shape], dtype, "x")],
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": signature})
    return path


def answers_of(path: Path, given: Any) -> Any:
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    return signature(x=tf.constant(given))["p"]


def same(version: Path, original: Callable[[Any], Any]) -> bool:
    golden = read_golden_of(version)
    return np.allclose(golden.probabilities, original(golden.tensors.astype(np.float32)), atol=1e-5)


def test_an_image_without_channels_is_adopted(exported: Export, tmp_path: Path) -> None:
    model = network(L.Flatten(), L.Dense(3, activation="softmax"), shape=(14, 18))
    model.save(tmp_path / "flat.keras")
    version = exported("keras", tmp_path / "flat.keras", "--preprocess", "unit")
    assert same(version, lambda x: model(x[..., 0] / 255))
    card = read_card(version)
    assert (card.preprocessing.color, card.input.shape) == ("gray", (None, 14, 18, 1))


def test_flat_rows_are_adopted_once_their_size_is_said(exported: Export, run: Any, tmp_path: Path) -> None:
    model = network(L.Dense(3, activation="softmax"), shape=(72,))
    path = tmp_path / "rows.keras"
    model.save(path)
    with pytest.raises(UsageError, match=r"rows of 72 numbers.*--image-size"):
        run("keras", path, "--preprocess", "unit")
    with pytest.raises(UsageError, match="do not make such rows"):
        run("keras", path, "--preprocess", "unit", "--image-size", "9")
    for size, color in (("6x12", "gray"), ("6x4", "rgb")):
        version = exported("keras", path, "--preprocess", "unit", "--image-size", size)
        assert same(version, lambda x: model(x.reshape(len(x), -1) / 255))
        assert read_card(version).preprocessing.color == color


def test_channels_first_are_adopted(exported: Export, tmp_path: Path) -> None:
    path = save_function(tmp_path / "first", lambda x: x[:, :, 3, 4], 3, 8, 10)
    version = exported("keras", path, "--preprocess", "unit")
    assert same(version, lambda x: answers_of(path, np.moveaxis(x, 3, 1) / 255))
    assert read_card(version).input.shape == (None, 8, 10, 3)


def test_an_unknown_rank_is_adopted_once_size_and_color_are_said(exported: Export, run: Any, tmp_path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec(None, tf.float32, "x")
    path = save_function(tmp_path / "any", lambda x: x[:, 3, 4, :], spec=spec)
    with pytest.raises(UsageError, match="--image-size"):
        run("keras", path, "--preprocess", "unit")
    with pytest.raises(UsageError, match="--color"):
        run("keras", path, "--preprocess", "unit", "--image-size", "12")
    version = exported("keras", path, "--preprocess", "unit", "--image-size", "12", "--color", "rgb")
    assert same(version, lambda x: answers_of(path, x / 255))


@pytest.mark.parametrize("as_is", [(), ("--as-is",)])
def test_uint8_pixels_need_no_scaling_and_take_none(
    exported: Export, run: Any, tmp_path: Path, as_is: tuple[str, ...]
) -> None:
    import tensorflow as tf

    path = save_function(tmp_path / "u8", lambda x: tf.cast(x[:, 3, 4, :], tf.float32) / 255, 8, 8, 3, dtype="uint8")
    version = exported("keras", path, *as_is)
    golden = read_golden_of(version)
    assert golden.tensors.dtype == np.uint8
    assert np.allclose(golden.probabilities, answers_of(path, golden.tensors), atol=1e-5)
    with pytest.raises(UsageError, match="takes uint8 pixels"):
        run("keras", path, "--preprocess", "unit", *as_is)


def test_numbers_scale_as_they_say(exported: Export, tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "own.keras")
    numbers = ("--scale", "0.1", "--mean", "1,2,3", "--std", "4", "--channel-order", "bgr")
    version = exported("keras", tmp_path / "own.keras", *numbers)
    assert same(version, lambda x: model((x[..., ::-1] * 0.1 - np.float32([1, 2, 3])) / 4))


def test_own_layers_are_named_and_then_imported(exported: Export, run: Any, tmp_path: Path) -> None:
    code = tmp_path / "my_layers.py"
    code.write_text(LAYERS)
    space: dict[str, Any] = {}
    exec(LAYERS, space)
    own = keras.saving.register_keras_serializable("my")(space["Scale"])
    model = small("softmax", 3, L.Rescaling(1 / 255), own())
    model.save(tmp_path / "own.keras")
    keras.saving.get_custom_objects().clear()
    with pytest.raises(InvalidData, match=r"uses Scale, which is not part of Keras.*--import"):
        run("keras", tmp_path / "own.keras")
    version = exported("keras", tmp_path / "own.keras", "--import", code)
    assert same(version, model)


def test_code_that_fails_is_named(run: Any, tmp_path: Path) -> None:
    small().save(tmp_path / "own.keras")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(InvalidData, match=r"bad\.py fails: ZeroDivisionError"):
        run("keras", tmp_path / "own.keras", "--import", tmp_path / "bad.py")


def test_a_lambda_is_refused_with_the_way_that_works(run: Any, tmp_path: Path) -> None:
    small("softmax", 3, L.Lambda(lambda x: x / 255)).save(tmp_path / "own.keras")
    with pytest.raises(InvalidData, match=r"Lambda layer.*model\.export\(FOLDER\)"):
        run("keras", tmp_path / "own.keras")


def test_teachable_machines_download_is_adopted_with_its_labels(exported: Export, tmp_path: Path) -> None:
    model = nested()
    save_as_keras2(model, tmp_path / "keras_model.h5")
    (tmp_path / "labels.txt").write_text("0 cat\n1 dog\n")
    version = exported("keras", tmp_path / "keras_model.h5", "--like", "teachable-machine")
    card = read_card(version)
    assert card.label_names == ("cat", "dog")
    assert (card.preprocessing.fit, card.preprocessing.interpolation) == ("fill", "lanczos")
    assert same(version, lambda x: model(x / 127.5 - 1))


def test_one_of_several_outputs_is_chosen(exported: Export, run: Any, tmp_path: Path) -> None:
    image = keras.Input((12, 12, 3))
    x = L.GlobalAveragePooling2D()(L.Rescaling(1 / 255)(image))
    outputs = [L.Dense(3, activation="softmax", name="kind")(x), L.Dense(1, name="age")(x)]
    model = keras.Model(image, outputs)
    model.save(tmp_path / "two.keras")
    with pytest.raises(UsageError, match=r"2 outputs.*--output-name: kind, age"):
        run("keras", tmp_path / "two.keras")
    version = exported("keras", tmp_path / "two.keras", "--output-name", "kind")
    assert same(version, lambda given: model(given)[0])


def refused_models(folder: Path) -> Iterator[tuple[Path, str]]:
    import tensorflow as tf

    strings = tf.TensorSpec([None], tf.string, "x")
    decoded = lambda x: tf.map_fn(lambda y: tf.cast(tf.io.decode_png(y)[0, 0], tf.float32), x, tf.float32)  # noqa: E731
    yield save_function(folder / "strings", decoded, spec=strings), "encoded images as strings"
    single = tf.TensorSpec([1, 8, 8, 3], tf.float32, "x")
    yield save_function(folder / "single", lambda x: x[:, 3, 4], spec=single), "exactly 1 image at a time"
    yield save_function(folder / "deep", lambda x: x[:, 3, 4, :3], 8, 8, 5), "must be an image"
    image, number = keras.Input((12, 12, 3)), keras.Input((1,))
    keras.Model([image, number], L.Dense(3)(number)).save(folder / "two.keras")
    yield folder / "two.keras", "2 inputs"
    small("sigmoid").save(folder / "several.keras")
    yield folder / "several.keras", "Several labels"


def test_models_that_cannot_be_served_are_refused_in_plain_words(run: Callable[..., Result], tmp_path: Path) -> None:
    for path, words in refused_models(tmp_path):
        for as_is in ((), ("--as-is",)) if path.is_dir() else ((),):
            with pytest.raises(SightlineError, match=words):
                run("keras", path, "--preprocess", "raw", *as_is)


def test_as_is_needs_images_in_and_probabilities_out(run: Any, tmp_path: Path) -> None:
    first = save_function(tmp_path / "first", lambda x: x[:, :, 3, 4], 3, 8, 10)
    with pytest.raises(UsageError, match="channels first"):
        run("keras", first, "--as-is", "--preprocess", "unit")
    small(None).export(tmp_path / "logits", verbose=False)
    with pytest.raises(UsageError, match="its output is logits"):
        run("keras", tmp_path / "logits", "--as-is", "--preprocess", "unit")


def test_a_second_scaling_is_warned_of(run: Callable[..., Result], tmp_path: Path) -> None:
    small("softmax", 3, L.Rescaling(1 / 255)).save(tmp_path / "own.keras")
    assert "scaled twice" in run("keras", tmp_path / "own.keras", "--preprocess", "unit").output
    assert "scaled twice" not in run("keras", tmp_path / "own.keras", "--preprocess", "raw").output


@pytest.mark.parametrize("given", [("--image-size", "9x"), ("--mean", "a,b"), ("--std", "1;2")])
def test_a_malformed_number_is_named(tmp_path: Path, given: tuple[str, str]) -> None:
    from click.testing import CliRunner

    from export.__main__ import export

    result = CliRunner().invoke(export, ["keras", str(tmp_path), *given])
    assert result.exit_code == 2
    assert given[1] in result.output
