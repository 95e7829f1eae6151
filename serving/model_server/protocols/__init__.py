"""Skins over the calls: gRPC, REST, the Predict socket, health."""
