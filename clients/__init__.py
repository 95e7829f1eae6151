"""What calls a running service: the Python client, the commands, batch scoring. No Flask, no TensorFlow."""
