"""The models that the end-to-end tests serve: digits and fashion, trained for as long as their accuracy needs."""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.exported import cached

EPOCHS = {"digits": 1, "fashion": 4}


@dataclass(frozen=True)
class Exported:
    """models: the folder that is served. probabilities: by name, what Keras answers in this process to (n, h, w, c)."""

    models: Path
    probabilities: dict[str, Callable[[Any], Any]]


def exported_models(folder: Path) -> Exported:
    """A copy of the exported models in the folder, and the Keras models they were made from."""
    root = os.environ.get("SIGHTLINE_DATA")
    data = [path for name in EPOCHS if root and (path := Path(root) / name).is_dir()]
    kept = cached("end-to-end", export_both, *data)
    shutil.copytree(kept / "models", folder / "models")
    return Exported(
        folder / "models", {path.stem: probabilities_of(path) for path in sorted((kept / "keras").iterdir())}
    )


def export_both(folder: Path) -> None:
    """Train and export into folder/models; folder/keras gets each Keras model as Keras saves it."""
    from export.data.datasets import Places
    from export.families import digits, fashion
    from export.options import Target
    from export.pipeline import Recipe, export
    from export.training.fit import Plan
    from export.training.train import train
    from serving.contract.errors import DataNotFound

    root = os.environ.get("SIGHTLINE_DATA")
    places = Places(data=None, root=Path(root) if root else None, keras=folder / "nothing")
    (folder / "keras").mkdir()
    for name, family in (("digits", digits), ("fashion", fashion)):
        augment = tuple(family.AUGMENTATION.items())
        plan = Plan(EPOCHS[name], batch_size=64, learning_rate=2e-3, patience=10, seed=0, augment=augment)

        def make(name: str = name, family: Any = family, plan: Plan = plan) -> Any:
            build = next(iter(family.ARCHITECTURES.values()))
            trained = train(functools.partial(family.load, places, 0), build, plan)
            trained.servable.core.save(folder / "keras" / f"{name}.keras")
            return trained

        with contextlib.suppress(DataNotFound):
            export(Recipe(name, make), Target(folder / "models", name))


def probabilities_of(path: Path) -> Callable[[Any], Any]:
    """Keras's own answers: a saved Keras model, loaded into this process when it is first asked."""

    @functools.cache
    def model() -> Any:
        import keras

        return keras.models.load_model(path)

    return lambda tensors: model().predict(tensors.astype("float32"), verbose=0)
