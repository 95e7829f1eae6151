"""Every family builds, exports and verifies, at sizes that take seconds."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("tensorflow")

from export.__main__ import export
from export.artifact.verify import verify
from export.data.datasets import IDX_FILES
from export.data.uint8_input import pixels
from export.families import family_names
from export.families.cifar import RECORD, TEST_FILE, TRAIN_FILES
from export.families.ensemble import fitted, hard, soft
from export.networks.classic import googlenet, resnet50, vggnet
from export.networks.pretrained import BACKBONES, classifier, normalised
from export.networks.small import SMALL_GRAY, SMALL_RGB
from serving.contract.card import ModelCard, read_card
from serving.contract.errors import InvalidData, SightlineError, UsageError

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

Export = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `sightline export` in this process; errors of ours come out as they are."""
    monkeypatch.delenv("SIGHTLINE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def call(*arguments: object) -> Result:
        places = ["--out", str(tmp_path / "models"), "--reports", str(tmp_path / "reports")]
        result = CliRunner().invoke(export, [*map(str, arguments), *places], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return call


@pytest.fixture
def exported(run: Callable[..., Result]) -> Export:
    """The same, returning the version's directory, which verifies."""

    def call(*arguments: object) -> Path:
        version = Path(run(*arguments).stdout.strip().splitlines()[-1])
        assert verify(version).ok
        return version

    return call


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """Forty and twenty pictures of ten classes in the four files of MNIST."""
    folder = tmp_path / "idx"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, n in zip(IDX_FILES, (40, 40, 20, 20), strict=True):
        values = np.arange(n, dtype=np.uint8) % 10
        if "images" in name:
            values = random.integers(0, 255, (n, 28, 28)).astype(np.uint8)
        header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
        (folder / name).write_bytes(gzip.compress(header + values.tobytes()))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per class: 12 reddish and 12 bluish photos of 40 x 48."""
    random = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(12):
            picture = random.integers(0, 90, (40, 48, 3)).astype(np.uint8)
            picture[..., channel] += 150
            Image.fromarray(picture).save(folder / f"{index:02d}.png")
    return tmp_path / "photos"


def test_every_family_has_a_command_with_an_example() -> None:
    assert {"digits", "fashion", "cifar", "imagenet", "transfer", "keras", "ensemble"} < set(family_names())
    for name in family_names():
        result = CliRunner().invoke(export, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert f"sightline export {name}" in result.output


@pytest.mark.parametrize(("family", "arch"), [*(("digits", arch) for arch in SMALL_GRAY), ("fashion", "cnn")])
def test_digits_and_fashion_export_with_every_architecture(
    exported: Export, idx_folder: Path, family: str, arch: str
) -> None:
    card = read_card(exported(family, "--data", idx_folder, "--arch", arch, "--epochs", 1))
    assert (card.family, card.input.shape, len(card.labels)) == (family, (None, 28, 28, 1), 10)
    assert {"test_accuracy", "test_matthews", "test_top5_accuracy", "test_roc_auc"} < set(card.metrics)


@pytest.mark.parametrize("arch", SMALL_RGB)
def test_cifar_reads_the_binary_version(exported: Export, tmp_path: Path, arch: str) -> None:
    random = np.random.default_rng(0)
    for name in (*TRAIN_FILES, TEST_FILE):
        records = random.integers(0, 255, (10, RECORD)).astype(np.uint8)
        records[:, 0] = np.arange(10)
        (tmp_path / name).write_bytes(records.tobytes())
    card = read_card(exported("cifar", "--data", tmp_path, "--arch", arch, "--epochs", 1))
    assert card.label_names[3] == "cat"


@pytest.mark.parametrize("build", [vggnet, googlenet, resnet50])
def test_classic_architectures_go_from_pictures_to_probabilities(build: Callable[..., Any]) -> None:
    model = build((32, 32, 3), 3)
    answer = np.asarray(model(np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)))
    assert answer.shape == (2, 3)
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)


def test_resnet50_has_the_published_number_of_weights() -> None:
    # 25,636,712 with 1000 classes in Keras, where every convolution has a bias as well: 26,560 of them
    assert resnet50((224, 224, 3), 1000).count_params() == 25_636_712 - 26_560


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_in_the_graph_is_what_keras_does(name: str) -> None:
    import keras

    row = BACKBONES[name]
    image = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, row.module).preprocess_input(image.copy())
    assert np.allclose(np.asarray(normalised(image, row.mode)), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds_at_its_own_size(name: str) -> None:
    assert classifier(name, BACKBONES[name].size, 1000, None).output_shape == (None, 1000)


def test_imagenet_exports_a_network_of_random_weights(exported: Export) -> None:
    card = read_card(
        exported("imagenet", "--arch", "mobilenetv2", "--weights", "none", "--image-size", 32, "--classes", 7)
    )
    assert (card.preprocessing.resize_short_side, len(card.labels)) == (37, 7)


@pytest.mark.skipif("SIGHTLINE_DATA" not in os.environ, reason="SIGHTLINE_DATA is not set")
def test_imagenet_answers_as_keras_does_with_its_own_preprocessing(tmp_path: Path) -> None:
    import keras

    from export.data.datasets import Places
    from export.families.imagenet import class_names, pretrained

    root = Path(os.environ["SIGHTLINE_DATA"])
    weights = next((root / "imagenet").glob("mobilenet_v2*.h5"), None)
    if weights is None:
        pytest.skip("SIGHTLINE_DATA has no imagenet/")
    places = Places(data=None, root=root, keras=tmp_path)
    made = pretrained(
        places, arch="mobilenetv2", weights="imagenet", labels=None, classes=1000, size=224, examples=None, seed=0
    )
    network = keras.applications.MobileNetV2(weights=None)
    network.load_weights(weights)
    tensors, expected = [], []
    for picture in made.examples:
        image = Image.fromarray(picture)
        scale = 256 / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        cropped = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        expected.append(network(keras.applications.mobilenet_v2.preprocess_input(cropped[None]), training=False)[0])
        tensors.append(made.preprocessing.apply(picture))
    assert np.abs(made.servable.probabilities(np.stack(tensors)) - np.stack(expected)).max() < 1e-5
    assert class_names(None, 1000, places)[0].id == "n01440764"
    assert made.metrics["test_top5_accuracy"] >= 0.95


def test_weights_of_another_architecture_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    import keras

    keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), classes=3).save_weights(
        tmp_path / "mobilenet.weights.h5"
    )
    with pytest.raises(InvalidData, match="does not hold weights of MobileNetV2"):
        run(
            *("imagenet", "--arch", "mobilenetv2", "--image-size", 32, "--classes", 3),
            *("--weights", tmp_path / "mobilenet.weights.h5"),
        )


def test_transfer_learns_from_a_folder_and_records_the_split(exported: Export, photos: Path, tmp_path: Path) -> None:
    version = exported(
        *("transfer", "--data", photos, "--weights", "none", "--image-size", 32, "--epochs", 3),
        *("--fine-tune", 3, "--head", "max:8:0.1", "--name", "colours"),
    )
    assert read_card(version).label_names == ("blue", "red")
    with (tmp_path / "reports" / "colours" / "1" / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_transfer_reads_a_csv_and_names_what_it_cannot_read(run: Callable[..., Result], photos: Path) -> None:
    (photos / "red" / "broken.png").write_bytes((photos / "red" / "00.png").read_bytes()[:200])
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.glob("*/*.png"))]
    (photos / "all.csv").write_text("\n".join(["path,label", *rows, "red/missing.png,red"]))
    options = ("transfer", "--data", photos / "all.csv", "--weights", "none", "--image-size", 32, "--epochs", 1)
    result = run(*options, "--name", "csv", "--folds", 2)
    card = read_card(Path(result.stdout.strip().splitlines()[-1]))
    assert {"fold_accuracy_mean", "fold_accuracy_deviation"} < set(card.metrics)
    assert "2 of 26 pictures cannot be read" in result.stderr
    assert "broken.png" in result.stderr
    with pytest.raises(InvalidData, match="2 pictures cannot be read"):
        run(*options, "--strict")


def test_folders_that_cannot_be_trained_on_are_refused(run: Callable[..., Result], photos: Path) -> None:
    options = ("--weights", "none", "--image-size", 32)
    with pytest.raises(SightlineError, match="there are no classes"):
        run("transfer", "--data", photos / "red", *options)
    for path in sorted((photos / "blue").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InvalidData, match="too few for a split"):
        run("transfer", "--data", photos, *options)
    (photos / "blue" / "00.png").unlink()
    with pytest.raises(InvalidData, match="a classifier needs two"):
        run("transfer", "--data", photos, *options)


@pytest.mark.skipif("SIGHTLINE_DATA" not in os.environ, reason="SIGHTLINE_DATA is not set")
@pytest.mark.slow
def test_ants_and_bees_are_told_apart(tmp_path: Path) -> None:
    root = os.environ["SIGHTLINE_DATA"]
    arguments = ["transfer", "--data", f"{root}/ants_bees", "--out", str(tmp_path), "--reports", str(tmp_path / "r")]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    card = read_card(Path(result.stdout.strip()))
    assert card.metrics["test_accuracy"] >= 0.94  # 47 of 50


def small_model(activation: str | None, units: int = 3, channels: int = 3) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((20, 24, channels)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(units, activation=activation),
        ]
    )


@pytest.mark.parametrize("suffix", ["keras", "h5", "saved_model"])
def test_an_own_model_is_adopted_and_answers_as_before(exported: Export, tmp_path: Path, suffix: str) -> None:
    model = small_model("softmax")
    path = tmp_path / f"own.{suffix}"
    model.export(path, verbose=False) if suffix == "saved_model" else model.save(path)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    version = exported("keras", path, "--preprocess", "unit", "--labels", tmp_path / "names.txt", "--name", "own")
    assert read_card(version).label_names == ("a", "b", "c")
    golden = read_golden_of(version)
    assert np.allclose(golden.probabilities, np.asarray(model(golden.tensors / np.float32(255))), atol=1e-5)


def test_logits_get_a_softmax_and_a_single_share_a_second_class(exported: Export, tmp_path: Path) -> None:
    for name, model in (("logits", small_model(None)), ("share", small_model("sigmoid", 1, 1))):
        model.save(tmp_path / f"{name}.keras")
        probabilities = read_golden_of(exported("keras", tmp_path / f"{name}.keras", "--name", name)).probabilities
        assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert probabilities.shape[1] == 2


def test_a_saved_model_is_served_as_it_is_with_its_card_as_a_signature(exported: Export, tmp_path: Path) -> None:
    small_model("softmax").export(tmp_path / "own", verbose=False)
    version = exported("keras", tmp_path / "own", "--as-is", "--preprocess", "tf", "--name", "own")
    card = read_card(version)
    assert (card.input.dtype, card.preprocessing.scale) == ("float32", 1 / 127.5)
    same = "variables/variables.data-00000-of-00001"
    assert (version / same).read_bytes() == (tmp_path / "own" / same).read_bytes()


def test_models_that_cannot_be_adopted_say_why(run: Callable[..., Result], tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "own.keras")
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "broken.keras").write_bytes(b"PK no zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match="names 2 classes; the model's output has 3"):
        run("keras", tmp_path / "own.keras", "--labels", tmp_path / "names.txt")
    for name in ("broken.keras", "empty"):
        with pytest.raises(InvalidData, match=name):
            run("keras", tmp_path / name)
    with pytest.raises(UsageError, match="cannot be a model's name"):
        run("keras", tmp_path / "own.keras", "--name", "../own")


@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_an_ensemble_is_the_vote_of_its_members(exported: Export, tmp_path: Path, vote: str) -> None:
    import keras

    for name, size in (("a", 24), ("b", 16)):
        keras.utils.set_random_seed(size)
        keras.Sequential(
            [keras.Input((size, size, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
        ).save(tmp_path / f"{name}.keras")
        exported("keras", tmp_path / f"{name}.keras", "--preprocess", "unit", "--name", name)
    golden = read_golden_of(exported("ensemble", "a", "b", "--vote", vote, "--name", "both"))
    small = np.asarray(fitted(golden.tensors, pixels("rgb", (16, 16), "crop")))
    answers = np.stack(
        [
            np.asarray(keras.models.load_model(tmp_path / f"{name}.keras")(tensors / np.float32(255)))
            for name, tensors in (("a", golden.tensors), ("b", small))
        ]
    )
    assert np.allclose(golden.probabilities, np.asarray({"soft": soft, "hard": hard}[vote](answers)), atol=1e-5)


def test_hard_votes_are_shares_and_the_mean_decides_between_equals() -> None:
    answers = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]], np.float32)
    shares = np.asarray(hard(answers))[0]
    assert shares.argmax() == 1
    assert shares.sum() == pytest.approx(1)
    assert np.asarray(hard(np.concatenate([answers, answers[:1]])))[0].argmax() == 0


def test_resizing_in_the_graph_is_pillows_within_one_step() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3)).astype(np.uint8)
    for wanted in (pixels("rgb", (20, 20), "crop"), pixels("gray", (20, 20), "crop"), pixels("gray", (48, 48), "crop")):
        ours = np.asarray(fitted(picture, wanted))[0].astype(int)
        assert np.abs(ours - wanted.apply(picture[0])).max() <= 1


def test_members_that_cannot_share_a_tensor_are_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    small_model("softmax").save(tmp_path / "own.keras")
    run("keras", tmp_path / "own.keras", "--name", "a")
    run("keras", tmp_path / "own.keras", "--name", "b", "--fit", "stretch")
    with pytest.raises(UsageError, match="one tensor cannot serve both"):
        run("ensemble", "a", "b")
    with pytest.raises(UsageError, match="two members"):
        run("ensemble", "a")
    with pytest.raises(UsageError, match="is no exported model"):
        run("ensemble", "a", "nobody")


def read_golden_of(version: Path) -> Any:
    from serving.contract.golden import read_golden

    card: ModelCard = read_card(version)
    golden = read_golden(version)
    assert golden.probabilities.shape == (len(golden), len(card.labels))
    assert json.loads((version / "assets.extra" / "model_card.json").read_text())["golden"]["n"] == len(golden)
    return golden
