"""The measured model inside a peer's process: its SavedModel, called the fastest way, and its card's preprocessing.

Runs in the peers' environments: needs TensorFlow, numpy and Pillow, and nothing of Sightline.
"""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(os.environ["PEER_MODEL"])  # a version's directory
THREADS = int(os.environ.get("PEER_THREADS", "1"))  # of one operation


class Model:
    """Classify encoded pictures."""

    def __init__(self, folder: Path = FOLDER, threads: int = THREADS) -> None:
        import tensorflow as tf

        self._card = json.loads((folder / "assets.extra" / "model_card.json").read_text())
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=2)
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with session.graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder))
        signature = meta.signature_def["serving_default"]
        feed = signature.inputs[self._card["input"]["tensor"]].name
        fetch = signature.outputs[self._card["output"]["tensor"]].name
        self._run = session.make_callable(fetch, [feed])
        self.predict([_blank()] * 2)

    def predict(self, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return the best label and its score for each encoded picture."""
        probabilities = self._run(np.stack([self._tensor(picture) for picture in pictures]))
        best = probabilities.argmax(axis=1)
        labels = self._card["labels"]
        return [
            {"label": labels[index]["name"], "score": float(row[index])}
            for index, row in zip(best, probabilities, strict=True)
        ]

    def _tensor(self, picture: bytes) -> np.ndarray[Any, Any]:
        wanted = self._card["preprocessing"]
        height, width, short = wanted["height"], wanted["width"], wanted["resize_short_side"]
        image = Image.open(io.BytesIO(picture)).convert("RGB" if wanted["color"] == "rgb" else "L")
        if wanted["fit"] == "crop" and short:
            scale = short / min(image.size)
            image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
            left, top = round((image.width - width) / 2), round((image.height - height) / 2)
            image = image.crop((left, top, left + width, top + height))
        elif image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, -1)


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (256, 256)).save(file, "PNG")
    return file.getvalue()
