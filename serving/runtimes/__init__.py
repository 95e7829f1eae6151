"""Run a version's files: TensorFlow and LiteRT. What verifies a version is what serves it."""
