"""The element types of tensors: their names and numbers in each protocol that Sightline speaks.

Sources: tensorflow/core/framework/types.proto and tensor.proto; the Open Inference Protocol v2, "Tensor Data Types".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type.

    code: its number in TensorFlow's DataType. name: as TensorFlow prints it. numpy: numpy's name. field: the field of a
    TensorProto that holds loose values. v2: the Open Inference Protocol's name, "" where it has none.
    """

    code: int
    name: str
    numpy: str
    field: str
    v2: str = ""


DTYPES = (
    Dtype(1, "float", "float32", "float_val", "FP32"),
    Dtype(2, "double", "float64", "double_val", "FP64"),
    Dtype(3, "int32", "int32", "int_val", "INT32"),
    Dtype(4, "uint8", "uint8", "int_val", "UINT8"),
    Dtype(5, "int16", "int16", "int_val", "INT16"),
    Dtype(6, "int8", "int8", "int_val", "INT8"),
    Dtype(7, "string", "object", "string_val", "BYTES"),
    Dtype(8, "complex64", "complex64", "scomplex_val"),
    Dtype(9, "int64", "int64", "int64_val", "INT64"),
    Dtype(10, "bool", "bool", "bool_val", "BOOL"),
    Dtype(14, "bfloat16", "bfloat16", "half_val", "BF16"),
    Dtype(17, "uint16", "uint16", "int_val", "UINT16"),
    Dtype(18, "complex128", "complex128", "dcomplex_val"),
    Dtype(19, "half", "float16", "half_val", "FP16"),
    Dtype(22, "uint32", "uint32", "uint32_val", "UINT32"),
    Dtype(23, "uint64", "uint64", "uint64_val", "UINT64"),
)
BY_CODE = {dtype.code: dtype for dtype in DTYPES}
BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES}
STRING = BY_NUMPY["object"]


def dtype_name(code: int) -> str:
    """Return a type's name as TensorFlow prints it, such as float, uint8, string; the number where it has none here."""
    return BY_CODE[code].name if code in BY_CODE else str(code)
