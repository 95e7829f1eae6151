"""Find a drawing in a picture and frame it as MNIST frames its digits."""

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from serving.contract.image import Pixels

# How MNIST was made: the digit in a box of 20 x 20, centred by its mass in 28 x 28.
# Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
INK_BOX = 20 / 28
FRAMED_BOX = (12 / 28, 24 / 28)  # the longer side of a drawing that needs no framing; MNIST's own are 20, few smaller
FRAMED_OFFSET = 1.6 / 28  # of the frame: how far the mass of such a drawing may be from the middle
# All measured on MNIST's test digits drawn on paper, with shadows, grain, coloured ink and JPEG (docs/export.md).
BRIGHT = 127  # of 0-255; the ground of a picture without contrast is light above it
FLAT = 32  # of 0-255; less contrast than this says nothing about what is ground and what is ink
WORK_SIDE = 384  # pixels; larger pictures are shrunk to it, which also averages their grain
SMALL_PICTURE = 65_536  # pixels; an array of so many costs less than cutting four strips
GROUND_SIDE = 48  # pixels; the size at which the ground is followed through light and shadow
GROUND_WINDOW = 0.35  # of the picture's short side; strokes are narrower, shadows are wider
INK_FLOOR = 0.3  # of the darkest ink; fainter marks do not stretch the box round the digit
NOISE_FLOOR = 0.12  # of the darkest ink; fainter marks are paper
GRAIN = 5.0  # standard deviations of the paper's noise; what is fainter is paper too
FAINTEST = 10  # of 0-255; a picture whose strongest mark is fainter is blank
SPECK = 0.08  # of the strongest mark's ink; a separate mark with less of it is a speck
SAME_SIZE = 0.12  # a digit within 12 % of its box is not resampled: it would only be blurred
THIN_STROKE = 2.0  # pixels in the 28 x 28 frame; MNIST's strokes measure 2 to 4 (2 x area / outline)


def has_light_ground(gray: Image.Image, values: Pixels | None = None) -> bool:
    """Tell dark ink on light paper from light ink on a dark ground.

    gray: of mode L. values: its pixels, uint8 (H, W), where the caller has them already.
    The ground is the median of the border. It is light when it is nearer to the brightest than to the darkest part of
    the picture, so that a page in a dim room counts as light.
    """
    ground = _median(_edges(gray) if values is None else _border(values))
    if max(gray.size) > GROUND_SIDE:
        gray = gray.copy()
        gray.thumbnail((GROUND_SIDE, GROUND_SIDE), Image.Resampling.BOX)
    darkest, brightest = cast(tuple[int, int], gray.getextrema())
    middle = (darkest + brightest) / 2 if brightest - darkest > FLAT else BRIGHT
    return ground > middle


def _median(values: Pixels) -> float:
    """Return the median, in a tenth of numpy's time for a few hundred numbers. values: (n,)."""
    ordered = np.sort(values)
    return (float(ordered[(len(ordered) - 1) // 2]) + float(ordered[len(ordered) // 2])) / 2


def _edges(gray: Image.Image) -> Pixels:
    """Return `_border` of a picture without an array of the whole where that would be large."""
    if gray.width * gray.height <= SMALL_PICTURE:
        return _border(np.asarray(gray))
    right, bottom = gray.width - 1, gray.height - 1
    boxes = (
        (0, 0, right + 1, 1),
        (0, bottom, right + 1, bottom + 1),
        (0, 0, 1, bottom + 1),
        (right, 0, right + 1, bottom + 1),
    )
    return np.concatenate([np.asarray(gray.crop(box)).ravel() for box in boxes])


def _border(gray: Pixels) -> Pixels:
    """Return the outermost pixels of a picture. gray: (H, W). Returns (2 H + 2 W,)."""
    return np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])


def frame_ink(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Frame a light drawing on a dark ground as MNIST frames its digits.

    The ground is taken away, shadows and grain with it; the drawing is cut out, its strokes are thickened where they
    would vanish, it is scaled into 20/28 of the frame and centred by its mass. A picture that is framed already is left
    as it is; a blank one stays blank.
    picture: mode L, light on dark. Returns mode L, width x height.
    """
    if picture.size == (width, height) and _is_framed(np.asarray(picture)):
        return picture
    ink = _ink(picture)
    drawing = _cut_out(ink)
    frame = np.zeros((height, width), np.uint8)
    if drawing is None:
        return Image.fromarray(frame)
    patch = np.asarray(_scaled_into(Image.fromarray(drawing), round(width * INK_BOX), round(height * INK_BOX)))
    top, left = _centred(patch, height, width)
    frame[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return Image.fromarray(frame)


def _is_framed(gray: Pixels) -> bool:
    """Tell whether a picture of the frame's size is framed already: black round a centred drawing of the right size."""
    peak = int(gray.max())
    if peak <= FAINTEST or int(_border(gray).max()) > INK_FLOOR * peak:
        return False
    rows, columns = _extent(gray > INK_FLOOR * peak)
    side = max((rows.stop - rows.start) / gray.shape[0], (columns.stop - columns.start) / gray.shape[1])
    row, column = _middle_of_mass(gray)
    offset = max(abs((row + 0.5) / gray.shape[0] - 0.5), abs((column + 0.5) / gray.shape[1] - 0.5))
    return bool(FRAMED_BOX[0] <= side <= FRAMED_BOX[1] and offset <= FRAMED_OFFSET)


def _ink(picture: Image.Image) -> Pixels:
    """Subtract the ground: 0 for paper, 255 where the ink is darkest. Returns uint8 (H, W), at most WORK_SIDE."""
    picture = picture.copy()
    picture.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX)
    above = np.asarray(picture).astype(np.float32) - _ground(picture)
    peak = float(above.max())
    sample = above[::3, ::3]
    grain = 1.4826 * float(np.median(np.abs(sample - np.median(sample))))  # the standard deviation, were it normal
    ink = np.clip(above, 0, None)
    if peak <= max(FAINTEST, GRAIN * grain):
        return np.zeros(ink.shape, np.uint8)
    ink[ink < max(NOISE_FLOOR * peak, min(GRAIN * grain, INK_FLOOR * peak))] = 0
    scaled: Pixels = (ink * (255 / peak)).astype(np.uint8)
    return scaled


def _ground(picture: Image.Image) -> npt.NDArray[np.float32]:
    """Estimate how bright the paper is under the ink, by a grayscale opening wider than the strokes.

    Returns float32 (H, W). Source: Serra, "Image Analysis and Mathematical Morphology", 1982 (the top-hat transform).
    """
    small = picture.copy()
    small.thumbnail((GROUND_SIDE, GROUND_SIDE), Image.Resampling.BOX)
    window = 2 * max(1, round(GROUND_WINDOW * min(small.size) / 2)) + 1
    opened = _spread(255 - _spread(255 - np.asarray(small), window // 2), window // 2)
    smooth = Image.fromarray(opened).filter(ImageFilter.GaussianBlur(window / 6))
    return np.asarray(smooth.resize(picture.size, Image.Resampling.BICUBIC), np.float32)


def _cut_out(ink: Pixels) -> Pixels | None:
    """Cut out the rectangle that holds the drawing; None if there is none. ink: (H, W)."""
    marks = ink > INK_FLOOR * 255
    if not marks.any():
        return None
    rows, columns = _extent(marks & _without_specks(ink, marks))
    return ink[rows, columns]


def _without_specks(ink: Pixels, marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mask the marks that hold a fair share of the ink, on a coarse grid. Returns bool (H, W)."""
    cell = max(1, -(-max(ink.shape) // GROUND_SIDE))
    height, width = -(-ink.shape[0] // cell), -(-ink.shape[1] // cell)
    padded = np.zeros((height * cell, width * cell), np.int64)
    padded[: ink.shape[0], : ink.shape[1]] = np.where(marks, ink, 0)
    mass = padded.reshape(height, cell, width, cell).sum(axis=(1, 3))
    groups = _connected(mass > 0)
    masses = np.bincount(groups.ravel(), weights=mass.ravel())
    masses[0] = 0
    kept = (masses >= SPECK * masses.max())[groups] & (groups > 0)
    return np.kron(kept, np.ones((cell, cell), bool))[: ink.shape[0], : ink.shape[1]]


def _connected(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Number the groups of cells that touch, corners included, from 1; empty cells are 0. cells: (H, W)."""
    groups = np.zeros(cells.shape, np.int64)
    count = 0
    for start in zip(*np.nonzero(cells), strict=True):
        if groups[start]:
            continue
        count += 1
        groups[start] = count
        waiting = [start]
        while waiting:
            row, column = waiting.pop()
            near = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
            for i, j in zip(*np.nonzero(cells[near] & (groups[near] == 0)), strict=True):
                cell = near[0].start + i, near[1].start + j
                groups[cell] = count
                waiting.append(cell)
    return groups


def _extent(marks: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle that holds all marks. marks: (H, W), at least one set."""
    rows, columns = np.flatnonzero(marks.any(axis=1)), np.flatnonzero(marks.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _scaled_into(drawing: Image.Image, width: int, height: int) -> Image.Image:
    """Scale the drawing to the box, its strokes thickened where they would vanish."""
    scale = min(width / drawing.width, height / drawing.height)
    if abs(scale - 1) <= SAME_SIZE:
        return drawing
    thickness = _stroke_width(np.asarray(drawing)) * scale
    if thickness < THIN_STROKE and scale < 1:
        drawing = _thickened(drawing, (THIN_STROKE - thickness) / scale)
        scale = min(width / drawing.width, height / drawing.height)
    size = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    scaled = drawing.resize(size, Image.Resampling.BILINEAR)
    brightest = max(1, int(np.asarray(scaled).max()))
    return Image.eval(scaled, lambda value: min(255, value * 255 // brightest))


def _stroke_width(ink: Pixels) -> float:
    """Return the mean width of the strokes in pixels: twice the area over the length of the outline."""
    marks = np.pad(ink > INK_FLOOR * 255, 1)
    inner = marks[1:-1, 1:-1] & marks[:-2, 1:-1] & marks[2:, 1:-1] & marks[1:-1, :-2] & marks[1:-1, 2:]
    outline = int(marks.sum()) - int(inner.sum())
    return 2 * int(marks.sum()) / max(1, outline)


def _thickened(drawing: Image.Image, pixels: float) -> Image.Image:
    """Widen the strokes by `pixels` (rounded to an even number); the frame grows by as much."""
    margin = max(1, round(pixels / 2))
    return Image.fromarray(_spread(np.pad(np.asarray(drawing), margin), margin))


def _spread(values: Pixels, margin: int) -> Pixels:
    """Dilate: the largest value within `margin` pixels of each, diagonals included. values: (H, W).

    Pillow's MaxFilter gives the same in time that grows with the window's area, and holds the interpreter meanwhile:
    230 ms for a drawing of one thin line. This grows with the logarithm of the margin.
    """
    for _ in range(2):
        values = _spread_down(values, margin).T
    return np.ascontiguousarray(values)


def _spread_down(values: Pixels, margin: int) -> Pixels:
    highest, seen, window = np.pad(values, ((margin, margin), (0, 0))), 1, 2 * margin + 1
    while seen < window:
        step = min(seen, window - seen)
        highest = np.maximum(highest[:-step], highest[step:])
        seen += step
    return highest


def _centred(patch: Pixels, height: int, width: int) -> tuple[int, int]:
    """Return the (top, left) that centres the patch by its mass, kept inside the frame."""
    row, column = _middle_of_mass(patch)
    top, left = round(height / 2 - row), round(width / 2 - column)
    return (
        min(max(top, 0), height - patch.shape[0]),
        min(max(left, 0), width - patch.shape[1]),
    )


def _middle_of_mass(gray: Pixels) -> tuple[float, float]:
    """Return (row, column) of the centre of mass; (0, 0) is the middle of the first pixel. gray: (H, W), not all 0."""
    mass = gray.astype(np.float64)
    return (
        float((mass.sum(axis=1) * np.arange(gray.shape[0])).sum() / mass.sum()),
        float((mass.sum(axis=0) * np.arange(gray.shape[1])).sum() / mass.sum()),
    )
