"""The numbers and images of a report, and how they are stored beside it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.networks.keras_graph import LayerInfo
from export.trained_model import Evaluated, Probabilities, TrainedModel

NUMBERS, ARRAYS = "numbers.json", "arrays.npz"
MISTAKES = 12
SAMPLES = 6
NAMED_ANSWERS = 3  # labels of each sample
THUMBNAIL = 160  # pixels


@dataclass(frozen=True, slots=True)
class ReportData:
    """The numbers and images of a report. counts: images of each class, by split.

    mistakes: {"truth", "guess", "score"} for each of `mistake_pictures`, most confident first.
    before, after: images before and after preprocessing. answers: the likeliest (label, score) of each of them.
    told: what was said about an adopted model, by the option's meaning. Arrays are empty where nothing was measured.
    """

    history: dict[str, list[float]]
    counts: dict[str, list[int]]
    mistakes: list[dict[str, Any]]
    summary: str
    layers: tuple[LayerInfo, ...]
    probabilities: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    mistake_pictures: list[npt.NDArray[np.uint8]]
    before: list[npt.NDArray[np.uint8]]
    after: list[npt.NDArray[np.uint8]]
    answers: list[list[tuple[str, float]]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)


def report_data_of(trained: TrainedModel, answers: Probabilities) -> ReportData:
    """Collect the numbers and images that the report shows. answers: the probabilities of `trained.examples`."""
    before = [np.asarray(_small(picture)) for picture in trained.examples[:SAMPLES]]
    after = [_visible(trained.preprocessing.apply(picture)) for picture in trained.examples[:SAMPLES]]
    splits = {
        "train": trained.train,
        "validation": trained.validation.split if trained.validation else None,
        "test": trained.test.split if trained.test else None,
    }
    counts = {
        name: np.bincount(split.labels, minlength=len(trained.labels)).tolist()
        for name, split in splits.items()
        if split
    }
    chosen = confident_mistakes(trained.test) if trained.test else []
    return ReportData(
        history=trained.history,
        counts=counts,
        mistakes=[_mistake(trained, index) for index in chosen],
        summary=trained.servable.summary,
        layers=trained.servable.layers,
        probabilities=trained.test.probabilities if trained.test else np.zeros((0, len(trained.labels)), np.float32),
        truth=trained.test.split.labels if trained.test else np.zeros(0, np.int64),
        mistake_pictures=[np.asarray(_small(p)) for p in trained.test.split.pictures(chosen)] if trained.test else [],
        before=before,
        after=after,
        answers=[_likeliest(trained, row) for row in answers[:SAMPLES]],
        told=trained.told,
    )


def _likeliest(trained: TrainedModel, row: npt.NDArray[np.float32]) -> list[tuple[str, float]]:
    return [(trained.labels[index].name, float(row[index])) for index in np.argsort(-row)[:NAMED_ANSWERS]]


def confident_mistakes(evaluated: Evaluated) -> list[int]:
    """Find the misclassified images with the highest scores, highest first. Returns indices."""
    guesses, scores = evaluated.probabilities.argmax(axis=1), evaluated.probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != evaluated.split.labels)
    return [int(index) for index in wrong[np.argsort(-scores[wrong], kind="stable")][:MISTAKES]]


def _mistake(trained: TrainedModel, index: int) -> dict[str, Any]:
    assert trained.test
    row = trained.test.probabilities[index]
    names = [label.name for label in trained.labels]
    truth = names[int(trained.test.split.labels[index])]
    return {"truth": truth, "guess": names[int(row.argmax())], "score": float(row.max())}


def _small(picture: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image


def _visible(tensor: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Convert a model's input to a displayable image; floats are stretched to 0-255. Returns uint8 (h, w, 3)."""
    values = tensor.astype(np.float64)
    if tensor.dtype != np.uint8:
        values = (values - values.min()) / max(1e-9, values.max() - values.min()) * 255
    visible: npt.NDArray[np.uint8] = np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)
    return visible


def store(folder: Path, data: ReportData) -> None:
    """Write the numbers as JSON and the arrays as one npz file."""
    numbers = {name: getattr(data, name) for name in ("history", "counts", "mistakes", "summary", "answers", "told")}
    numbers["layers"] = [asdict(layer) for layer in data.layers]
    (folder / NUMBERS).write_text(json.dumps(numbers), encoding="utf-8")
    groups = {"mistake": data.mistake_pictures, "before": data.before, "after": data.after}
    pictures = {f"{group}-{i:02d}": p for group, members in groups.items() for i, p in enumerate(members)}
    arrays: dict[str, Any] = {"probabilities": data.probabilities, "truth": data.truth, **pictures}
    np.savez_compressed(folder / ARRAYS, **arrays)


def restore(folder: Path) -> ReportData:
    """Read what `store` wrote, in this or an older release. Raises OSError."""
    numbers = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    layers = tuple(
        LayerInfo(**{**layer, "shape": tuple(layer["shape"]), "inputs": tuple(layer["inputs"])})
        for layer in numbers.pop("layers", ())  # reports of older releases have none
    )
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        groups = {
            group: [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}-")]
            for group in ("mistake", "before", "after")
        }
        return ReportData(
            **numbers,
            layers=layers,
            probabilities=arrays["probabilities"],
            truth=arrays["truth"],
            mistake_pictures=groups["mistake"],
            before=groups["before"],
            after=groups["after"],
        )
