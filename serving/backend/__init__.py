"""From tensors to probabilities: the `Predictor` protocol, and the one that speaks gRPC to a model server."""
