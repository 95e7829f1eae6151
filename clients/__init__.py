"""The commands that call a running service, batch scoring, and the Python client. No Flask, no TensorFlow."""
