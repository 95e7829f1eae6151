"""Models that cannot be converted to bfloat16."""

from typing import Any

import pytest

from export.artifact.batch_norm import CannotCloneError

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.integration


def test_a_graph_without_layers_cannot_be_cloned() -> None:
    from export.artifact.bfloat16 import convert_to_bfloat16

    class OwnCall(keras.Model):  # type: ignore[misc, name-defined]
        def call(self, image: Any) -> Any:
            return image

    with pytest.raises(CannotCloneError, match="OwnCall has a `call` of its own"):
        convert_to_bfloat16(OwnCall())
