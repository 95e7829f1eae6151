"""gRPC's status codes by their numbers, where those travel without gRPC."""

import grpc

STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
