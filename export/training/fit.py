"""Fit a Keras model to a data set, resumably.

Two models share their weights. The *core* is served: float32 (n, h, w, c) in 0-255 to probabilities (n, k), with its
scaling inside. The *trainer* is the core behind the augmentation layers, which only training needs.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.data.augmentation import Strengths, layers_of
from export.data.balance import balance_classes, class_weights
from export.data.datasets import Split
from export.networks.keras_graph import KerasModel
from export.progress import say, training_progress
from serving.contract.errors import InvalidData

Build = Callable[[tuple[int, int, int], int], KerasModel]  # (shape (h, w, c), classes) to a core

SMALLEST_RATE = 1e-6
SHRINK = 0.3  # factor of the learning rate at a plateau
LOSS = "sparse_categorical_crossentropy"
BEST_FILE, BEST_WEIGHTS = "best.json", "best.npz"


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a training.

    schedule: `cosine` rises over the first epoch and falls to zero; `plateau` lowers the rate when the validation loss
    stops falling. patience: epochs without a better validation loss before training stops; the best epoch's weights are
    kept. augment: strengths by name. folds, tune: 0 for none. backups: folder from which a killed training resumes;
    None for no backups.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    schedule: str = "cosine"
    augment: tuple[tuple[str, float], ...] = ()
    balance: str = "none"
    folds: int = 0
    tune: int = 0
    mixed_precision: bool = False
    backups: Path | None = None

    @property
    def strengths(self) -> Strengths:
        """Strengths of the augmentations by name."""
        return dict(self.augment)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained core. best_epoch: counted from 1; its weights are kept. history: under Keras's names, per epoch."""

    core: KerasModel
    epochs: int
    best_epoch: int
    history: dict[str, list[float]]


def fit(
    train: Split,
    validation: Split,
    build: Build,
    plan: Plan,
    classes: int,
    *,
    keep_last: bool = False,
    mark: str = "",
) -> Fitted:
    """Build a core and fit it. keep_last: keep the weights of the last epoch instead of the best.

    mark: identifies the data. With plan.backups, a killed training of the same plan on the same data resumes.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(plan.seed)
    shape = train.tensors([0]).shape[1:]
    with _strategy(tf).scope():
        core = build(shape, classes)
        fitted_core = _half_precision(build, shape, classes, core) if plan.mixed_precision else core
        trainer = _trainer(fitted_core, shape, plan)
        trainer.compile(_optimizer(plan, -(-len(train) // plan.batch_size)), LOSS, metrics=["accuracy"])
        history = run(trainer, fitted_core, train, validation, plan, keep_last=keep_last, mark=mark)
    if fitted_core is not core:
        core.set_weights(fitted_core.get_weights())
    losses = history.get("val_loss", [0.0])
    return Fitted(core, len(losses), int(np.argmin(losses)) + 1, history)


def run(
    trainer: KerasModel, core: KerasModel, train: Split, validation: Split, plan: Plan, *, keep_last: bool, mark: str
) -> dict[str, list[float]]:
    """Fit a compiled trainer and leave the best epoch's weights in the core. Returns the history.

    Raises InvalidData where training diverges.
    """
    chosen = balance_classes(train, plan.balance, plan.seed)
    steps = -(-len(chosen) // plan.batch_size)
    epochs = f"{plan.epochs} epochs" if plan.epochs > 1 else "one epoch"
    say(f"training {core.count_params():,} parameters on {len(chosen):,} images for at most {epochs}")
    _make_variables(trainer, core.output_shape[-1])
    with _Backup(plan, mark) as backup:
        history = trainer.fit(
            _prefetched(chosen.shuffled_batches(plan.batch_size, plan.seed)),
            validation_data=_prefetched(validation.batches(max(plan.batch_size, 32))),
            epochs=plan.epochs,
            verbose=0,
            shuffle=False,  # the data set is shuffled already
            class_weight=class_weights(chosen.labels) if plan.balance == "class-weight" else None,
            callbacks=[*_callbacks(plan, backup, core, keep_last), *training_progress(plan.epochs, steps)],
        )
        if not keep_last:
            backup.load_best(core)
    numbers = {name: [float(value) for value in values] for name, values in history.history.items()}
    if not np.isfinite(numbers.get("loss", [0.0])).all():
        raise InvalidData("Training diverged: the loss is no longer a finite number.", hint="Lower --learning-rate.")
    return numbers


def _make_variables(trainer: KerasModel, classes: int) -> None:
    """Create the variables of optimizer and metrics before the first step, which would be traced twice otherwise.

    On several GPUs Keras creates them itself.
    """
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return
    trainer.optimizer.build(trainer.trainable_variables)
    trainer.compute_metrics(None, np.zeros(1), np.zeros((1, classes)))


class _Backup:
    """The folder from which a killed training resumes, and which holds the weights of the best epoch.

    Its name is a hash of the plan and the data, so that no other training resumes from it.
    """

    def __init__(self, plan: Plan, mark: str) -> None:
        import tempfile

        self.is_kept = plan.backups is not None
        if plan.backups is None:
            self.folder = Path(tempfile.mkdtemp())
            return
        facts = json.dumps({**asdict(plan), "backups": None, "mark": mark}, sort_keys=True)
        self.folder = plan.backups / f".resume-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
        if self.folder.exists():
            say(f"resuming a killed training from {self.folder}")
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "_Backup":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def best_loss(self) -> float | None:
        """The lowest validation loss so far; None before the first epoch."""
        path = self.folder / BEST_FILE
        return float(json.loads(path.read_text())["val_loss"]) if path.exists() else None

    def keep_best(self, core: KerasModel) -> Callable[[int, Any], None]:
        """A function to call after each epoch: it stores the weights if the validation loss is the lowest so far."""

        def after_epoch(epoch: int, logs: Any) -> None:
            loss, best = float(logs["val_loss"]), self.best_loss
            if best is None or loss < best:
                np.savez(self.folder / BEST_WEIGHTS, *core.get_weights())
                (self.folder / BEST_FILE).write_text(json.dumps({"val_loss": loss, "epoch": epoch + 1}))

        return after_epoch

    def load_best(self, core: KerasModel) -> None:
        """Load the best epoch's weights into the core."""
        if (self.folder / BEST_WEIGHTS).exists():
            with np.load(self.folder / BEST_WEIGHTS) as weights:
                core.set_weights([weights[name] for name in weights.files])


def _callbacks(plan: Plan, backup: _Backup, core: KerasModel, keep_last: bool) -> list[Any]:
    from keras import callbacks

    chosen: list[Any] = []
    if backup.is_kept:
        chosen.append(callbacks.BackupAndRestore(str(backup.folder / "backup"), delete_checkpoint=False))
    if not keep_last:
        chosen.append(callbacks.LambdaCallback(on_epoch_end=backup.keep_best(core)))
        chosen.append(callbacks.EarlyStopping(monitor="val_loss", patience=plan.patience))
    if plan.schedule == "plateau":
        patience = max(1, plan.patience // 3)
        chosen.append(callbacks.ReduceLROnPlateau(factor=SHRINK, patience=patience, min_lr=SMALLEST_RATE))
    return chosen


def _trainer(core: KerasModel, shape: tuple[int, ...], plan: Plan) -> KerasModel:
    import keras

    image = keras.Input(shape, name="picture")
    varied = image
    for layer in layers_of(plan.strengths):
        varied = layer(varied)
    return keras.Model(image, core(varied))


def _optimizer(plan: Plan, steps: int) -> Any:
    import keras

    if plan.schedule == "plateau":
        return keras.optimizers.Adam(plan.learning_rate)
    warmup = min(steps, plan.epochs * steps // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, plan.epochs * steps - warmup),
        warmup_target=plan.learning_rate,
        warmup_steps=warmup,
    )
    return keras.optimizers.Adam(schedule)


def _strategy(tf: Any) -> Any:
    """Use all GPUs where there are several, else TensorFlow's default."""
    return (
        tf.distribute.MirroredStrategy()
        if len(tf.config.list_logical_devices("GPU")) > 1
        else tf.distribute.get_strategy()
    )


def _half_precision(build: Build, shape: tuple[int, int, int], classes: int, core: KerasModel) -> KerasModel:
    """Build a copy of the core that computes in float16. The core, which is served, stays float32."""
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        twin = build(shape, classes)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    twin.set_weights(core.get_weights())
    return twin


def _prefetched(batches: Any) -> Any:
    import tensorflow as tf

    return batches.map(lambda x, y: (tf.cast(x, tf.float32), y)).prefetch(2)
