"""Turn tensors into probabilities: the `Predictor` protocol, and the predictors that call a model server."""
