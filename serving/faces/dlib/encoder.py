"""dlib's encoder. It takes 73 ms a face on one core and holds the GIL meanwhile: runs in face processes only."""

from typing import Any

import numpy as np

from serving.faces.dlib.weights import encoder_name, load_dlib, weights_file
from serving.faces.encoder import EncoderName
from serving.faces.face import ENCODING_SIZE, Chips, Encodings


class DlibEncoder:
    """Encode with dlib_face_recognition_resnet_model_v1 as face_recognition.face_encodings does (num_jitters=1)."""

    def __init__(self) -> None:
        self._network: Any = load_dlib().face_recognition_model_v1(str(weights_file("encoder")))

    @property
    def name(self) -> EncoderName:
        return encoder_name()

    def encode(self, chips: Chips) -> Encodings:
        """Encode chips, uint8 (n, 150, 150, 3). Returns float32 (n, 128)."""
        vectors = [np.asarray(self._network.compute_face_descriptor(np.ascontiguousarray(chip))) for chip in chips]
        return np.asarray(vectors, np.float32).reshape(len(chips), ENCODING_SIZE)
