"""Run a version's files with TensorFlow or LiteRT. Serving and the export's verification share this code."""
