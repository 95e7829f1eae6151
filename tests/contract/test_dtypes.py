"""The table of element types against the official ones."""

import numpy as np
import pytest

from serving.contract.dtypes import BY_CODE, BY_NUMPY, DTYPES, dtype_name


@pytest.mark.integration
def test_numbers_and_names_are_tensorflow_s() -> None:
    types_pb2 = pytest.importorskip("tensorflow.core.framework.types_pb2")
    tf = pytest.importorskip("tensorflow")
    for dtype in DTYPES:
        official = tf.dtypes.as_dtype(dtype.code)
        assert types_pb2.DataType.Name(dtype.code) == f"DT_{dtype.name.upper()}"
        assert official.as_numpy_dtype == np.dtype(dtype.numpy)


def test_fields_exist_in_a_tensor_proto() -> None:
    tensor_pb2 = pytest.importorskip("tensorflow.core.framework.tensor_pb2")
    assert all(hasattr(tensor_pb2.TensorProto(), dtype.field) for dtype in DTYPES)


def test_each_name_stands_for_one_type() -> None:
    assert len(BY_CODE) == len(BY_NUMPY) == len(DTYPES)
    assert (dtype_name(1), dtype_name(4), dtype_name(99)) == ("float", "uint8", "99")
    assert (BY_NUMPY["uint8"].v2, BY_NUMPY["float32"].v2) == ("UINT8", "FP32")
