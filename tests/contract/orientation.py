"""The orientations of EXIF."""

from typing import Any

import numpy as np


def stored_as(upright: Any, orientation: int) -> Any:
    """Turn a picture, (h, w, 3), as a camera held that way stores it. Source: the table of EXIF 2.32, 4.6.4"""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])
