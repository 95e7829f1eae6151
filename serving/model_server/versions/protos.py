"""Small messages that the official Python package lacks: batching, monitoring and TLS files, and gRPC's health check.

They live in a descriptor pool of their own, so that an installed `grpc_health` does not collide with them.
Sources: tensorflow_serving/config/{monitoring_config,ssl_config}.proto,
tensorflow_serving/servables/tensorflow/session_bundle_config.proto, grpc/health/v1/health.proto.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int64": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "int32": _Field.TYPE_INT32,
}

# message: fields in the order (number, name, type); `*` marks a repeated one
_SERVING: dict[str, list[tuple[int, str, str]]] = {
    "BatchingParameters": [
        (1, "max_batch_size", "google.protobuf.Int64Value"),
        (2, "batch_timeout_micros", "google.protobuf.Int64Value"),
        (3, "max_enqueued_batches", "google.protobuf.Int64Value"),
        (4, "num_batch_threads", "google.protobuf.Int64Value"),
        (5, "thread_pool_name", "google.protobuf.StringValue"),
        (6, "allowed_batch_sizes", "*int64"),
        (7, "pad_variable_length_inputs", "bool"),
        (8, "enable_large_batch_splitting", "google.protobuf.BoolValue"),
        (9, "max_execution_batch_size", "google.protobuf.Int64Value"),
    ],
    "PrometheusConfig": [(1, "enable", "bool"), (2, "path", "string")],
    "MonitoringConfig": [(1, "prometheus_config", "tensorflow.serving.PrometheusConfig")],
    "SSLConfig": [
        (1, "server_key", "string"),
        (2, "server_cert", "string"),
        (3, "custom_ca", "string"),
        (4, "client_verify", "bool"),
    ],
}
_HEALTH: dict[str, list[tuple[int, str, str]]] = {
    "HealthCheckRequest": [(1, "service", "string")],
    "HealthCheckResponse": [(1, "status", "int32")],  # an enum: the same on the wire
}


def _add_file(pool: Any, package: str, messages: dict[str, list[tuple[int, str, str]]]) -> None:
    file = descriptor_pb2.FileDescriptorProto(name=f"sightline/{package}.proto", package=package, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            repeated = kind.startswith("*")
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            bare = kind.removeprefix("*")
            if bare in _SCALARS:
                added.type = _SCALARS[bare]
            else:
                added.type, added.type_name = _Field.TYPE_MESSAGE, f".{bare}"
    pool.Add(file)


def _pool() -> Any:
    pool: Any = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    _add_file(pool, "tensorflow.serving", _SERVING)
    _add_file(pool, "grpc.health.v1", _HEALTH)
    return pool


_POOL = _pool()


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


BatchingParameters = _class("tensorflow.serving.BatchingParameters")
MonitoringConfig = _class("tensorflow.serving.MonitoringConfig")
SSLConfig = _class("tensorflow.serving.SSLConfig")
HealthCheckRequest = _class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = _class("grpc.health.v1.HealthCheckResponse")
