"""ICC profiles made by hand, for pictures whose colours one can compute.

Source: ICC.1:2010, sections 7 (header and tag table), 10.5 (curve), 10.8 (lut8), 10.31 (XYZ).
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

D50 = (0.9642, 1.0, 0.8249)
# What each primary adds to X, Y, Z under D50: Bradford-adapted from the primaries' chromaticities and D65.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))

Colors = npt.NDArray[Any]


def rgb_profile(primaries: Sequence[Sequence[float]], curve: bytes | None = None) -> bytes:
    """A display's profile: what its primaries add to XYZ, and the curve of all three channels (default: sRGB's)."""
    curve = curve or srgb_curve()
    columns = {f"{name}XYZ".encode(): _xyz(column) for name, column in zip("rgb", primaries, strict=True)}
    return profile(b"RGB ", {b"wtpt": _xyz(D50), **columns, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def gray_profile(gamma: float) -> bytes:
    """A gray profile with this gamma."""
    return profile(b"GRAY", {b"wtpt": _xyz(D50), b"kTRC": gamma_curve(gamma)})


def cmyk_profile(lightness: Mapping[tuple[int, int, int, int], int]) -> bytes:
    """A press that prints grays only. lightness: 0-255 (of L*), for each combination of inks, each 0 or 1."""
    identity = bytes(range(256))
    grid = b"".join(
        bytes([lightness[c, m, y, k], 128, 128]) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    )
    unit = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + struct.pack(">BBBx", 4, 3, 2) + unit + identity * 4 + grid + identity * 3
    return profile(b"CMYK", {b"wtpt": _xyz(D50), b"A2B0": table}, kind=b"prtr", pcs=b"Lab ")


def profile(space: bytes, tags: Mapping[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """A whole profile of version 2.4."""
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at, len(data))
        body += data + bytes(-len(data) % 4)
        at = 128 + 4 + 12 * len(tags) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", at, 0x02400000, kind, space, pcs, b"acsp").ljust(68, b"\0") + _fixed(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_curve() -> bytes:
    """sRGB's curve: IEC 61966-2-1."""
    return b"para\0\0\0\0" + struct.pack(">Hxx", 3) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def gamma_curve(gamma: float) -> bytes:
    """A pure power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def linear(encoded: Colors) -> Colors:
    """sRGB's 0-255 to light, 0-1. (..., 3)"""
    share = np.asarray(encoded, np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def encoded(light: Colors) -> Colors:
    """Light, 0-1, to sRGB's 0-255, rounded. (..., 3)"""
    light = np.clip(light, 0, 1)
    share = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(share * 255).astype(np.uint8)


def in_display_p3(srgb: Colors) -> Colors:
    """The same colours as numbers of Display P3. uint8 (..., 3)"""
    to_p3 = np.linalg.inv(np.array(DISPLAY_P3).T) @ np.array(SRGB).T
    return encoded(linear(srgb) @ to_p3.T)


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
