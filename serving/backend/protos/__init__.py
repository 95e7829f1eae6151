"""Generated from wire.proto by `make protos`."""
