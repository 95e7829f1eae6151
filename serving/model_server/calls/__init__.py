"""Answer a call on a loaded version: Predict, and the calls on tf.Example."""
