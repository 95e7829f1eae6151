"""A model whose answers one can compute by hand: three classes, the mean of the red, green and blue channel."""

from serving.contract.card import Calibration, Class, Golden, Input, ModelCard, Output, Source, Training
from serving.contract.preprocessing import Preprocessing

COLORS = ModelCard(
    schema_version=1,
    name="colors",
    family="colors",
    created="2026-01-02T03:04:05Z",
    input=Input(signature="serving_default", tensor="image", dtype="uint8", shape=(None, 2, 2, 3)),
    output=Output(tensor="probabilities", kind="probabilities"),
    preprocessing=Preprocessing(
        color="rgb",
        height=2,
        width=2,
        fit="stretch",
        resize_short_side=None,
        interpolation="bilinear",
        antialias=True,
        polarity="as_is",
        dtype="uint8",
        scale=1.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        channel_order="rgb",
    ),
    labels=(Class("r", "red"), Class("g", "green"), Class("b", "blue")),
    calibration=Calibration(temperature=1.0),
    source=Source(kind="dataset", name="none", sha256="0" * 64),
    training=Training(epochs=0, parameters=0, seed=0, seconds=0.0, tensorflow="2.21.0", keras="3.15.1"),
    metrics={"test_accuracy": 1.0},
    golden=Golden(n=0, atol=1e-5),
)
