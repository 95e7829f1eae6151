"""Small SavedModels whose answers one can compute by hand, made with the v1 builder as TensorFlow Serving's own are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1
PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

Signatures = dict[str, tuple[dict[str, Any], dict[str, Any], str]]


def write(directory: Path, build: Callable[[], Signatures], *, variables: bool = True) -> Path:
    """Build a graph and save it. build: returns inputs, outputs and method name of each signature."""
    with tf.Graph().as_default(), v1.Session() as session:
        signatures = build()
        definitions = {
            name: v1.saved_model.signature_def_utils.build_signature_def(
                {alias: v1.saved_model.utils.build_tensor_info(tensor) for alias, tensor in inputs.items()},
                {alias: v1.saved_model.utils.build_tensor_info(tensor) for alias, tensor in outputs.items()},
                method,
            )
            for name, (inputs, outputs, method) in signatures.items()
        }
        if variables:
            session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], definitions, main_op=v1.tables_initializer())
        builder.save()
    return directory


def half_plus(addend: float) -> Callable[[], Signatures]:
    """x / 2 + addend, with the signatures of TensorFlow Serving's half_plus_two: Predict, Classify and Regress."""

    def build() -> Signatures:
        half = v1.get_variable("half", initializer=0.5, use_resource=True)
        more = v1.get_variable("more", initializer=float(addend), use_resource=True)
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = v1.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        answer = tf.add(tf.multiply(half, x), more, name="y")
        from_example = tf.add(tf.multiply(half, features["x"]), more)
        regress = ({"inputs": serialized}, {"outputs": from_example}, REGRESS)
        classes = tf.as_string(tf.cast(from_example, tf.int32))
        classify = ({"inputs": serialized}, {"classes": classes, "scores": from_example}, CLASSIFY)
        return {
            "serving_default": ({"x": x}, {"y": answer}, PREDICT),
            "regress_x_to_y": regress,
            "classify_x_to_y": classify,
            "x2": ({"inputs": x}, {"outputs": answer}, REGRESS),
        }

    return build


def two_inputs() -> Signatures:
    """a + b and a - b of int32, in two outputs."""
    a = v1.placeholder(tf.int32, [None], name="a")
    b = v1.placeholder(tf.int32, [None], name="b")
    return {"serving_default": ({"a": a, "b": b}, {"sum": a + b, "difference": a - b}, PREDICT)}


def echo() -> Signatures:
    """One signature for each type: what comes in goes out."""
    signatures: Signatures = {}
    for dtype in (
        *(tf.float32, tf.float64, tf.float16, tf.bfloat16, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32, tf.uint32),
        *(tf.int64, tf.uint64, tf.bool, tf.string, tf.complex64, tf.complex128),
    ):
        x = v1.placeholder(dtype, None, name=f"in_{dtype.name}")
        signatures[dtype.name] = ({"x": x}, {"y": tf.identity(x)}, PREDICT)
    text = v1.placeholder(tf.string, [None], name="text")
    outputs = {"text": tf.strings.join([text, "!"]), "text_bytes": tf.identity(text)}
    signatures["serving_default"] = ({"text": text}, outputs, PREDICT)
    return signatures


def dense() -> Signatures:
    """x [n, 4] times a matrix of ones [4, 3]."""
    x = v1.placeholder(tf.float32, [None, 4], name="x")
    weights = v1.get_variable("weights", initializer=tf.ones([4, 3]), use_resource=True)
    return {"serving_default": ({"x": x}, {"y": tf.matmul(x, weights)}, PREDICT)}


def picture() -> Signatures:
    """A convolution over uint8 pictures [n, 8, 8, 1], whose probabilities are of two classes."""
    image = v1.placeholder(tf.uint8, [None, 8, 8, 1], name="image")
    kernel = v1.get_variable("kernel", initializer=tf.ones([3, 3, 1, 2]), use_resource=True)
    features = tf.nn.conv2d(tf.cast(image, tf.float32) / 255.0, kernel, 1, "SAME")
    probabilities = tf.nn.softmax(tf.reduce_mean(features, [1, 2]))
    return {"serving_default": ({"image": image}, {"probabilities": probabilities}, PREDICT)}


def slow() -> Signatures:
    """Counts to n and answers it: 1e6 takes about a second."""
    n = v1.placeholder(tf.int32, [], name="n")
    (counted,) = tf.while_loop(lambda i: i < n, lambda i: (i + 1,), [tf.constant(0)])
    return {"serving_default": ({"n": n}, {"counted": tf.convert_to_tensor(counted)}, PREDICT)}


def heavy() -> Signatures:
    """x plus the first of 3.6 million variables: 14 MB."""
    x = v1.placeholder(tf.float32, [None, 1], name="x")
    weights = v1.get_variable("weights", initializer=tf.zeros([3_600_000]), use_resource=True)
    return {"serving_default": ({"x": x}, {"y": x + weights[0]}, PREDICT)}
