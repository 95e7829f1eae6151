"""Compare faces found and named with `face_recognition` used by hand at full size: ratios within one run.

    SIGHTLINE_DATA=... python -m benchmarks.bench_face_detection [--only plain,bystander] [--max-side 800]

Photos: the samples as they are, and scenes composed of them whose people are known: small, dark, rotated by EXIF,
enlarged to 12 megapixels, a bystander beside a large portrait, groups, one small person in 24 megapixels.
face_recognition gets each photo upright and is called as in its tutorial: `face_locations` (HOG, one upsampling) and
`face_encodings`.

Times are CPU time of this process. `ours` encodes with dlib too; `find` leaves encoding out on both sides, as when
the model server encodes.
"""

import argparse
import io
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from serving.contract.image_limits import ImageLimits
from serving.faces.dlib.detector import DlibDetector
from serving.faces.dlib.encoder import DlibEncoder
from serving.faces.dlib.weights import import_face_recognition

TOLERANCE = 0.6
WHO = {
    "known": {"alex_lacamoire", "biden", "lin-manuel_miranda", "obama", "rose_leslie"},
    "unknown": {"alex_lacamoire2", "biden2", "obama2", "obama_240p", "rose_leslie2", "stranger_johnsnow"},
}
FACE_OF_PHOTO = 0.3  # of a portrait's width, about: what its face takes


@dataclass(frozen=True)
class Photo:
    """A photo. people: the known people in it, None for a stranger, in any order."""

    kind: str
    name: str
    data: bytes
    people: tuple[str | None, ...]


@dataclass
class Answer:
    """Names found, and CPU seconds: of finding, and of everything."""

    names: list[str | None]
    find: float
    whole: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="kinds, with commas")
    parser.add_argument("--max-side", type=int, default=800)
    parser.add_argument("--save", type=Path, help="folder to save the photos to")
    asked = parser.parse_args()
    root = Path(os.environ["SIGHTLINE_DATA"]) / "faces"
    ours, theirs = Ours(root, asked.max_side), Theirs(root)
    print("kind: photos, people | of ours: found, right, photos with a face | of theirs the same | ratios of time")
    rows: dict[str, list[tuple[Photo, Answer, Answer]]] = {}
    for photo in photos(root):
        if asked.only and photo.kind not in asked.only.split(","):
            continue
        if asked.save:
            asked.save.mkdir(parents=True, exist_ok=True)
            (asked.save / f"{photo.kind}-{photo.name}.jpg").write_bytes(photo.data)
        if rows and photo.kind not in rows:
            tell(*list(rows.items())[-1])
        rows.setdefault(photo.kind, []).append((photo, ours.answer(photo.data), theirs.answer(photo.data)))
    tell(*list(rows.items())[-1])
    tell("all", [row for each in rows.values() for row in each])


def tell(kind: str, rows: list[tuple[Photo, Answer, Answer]]) -> None:
    """Print one line: faces found, right names, photos with a face, for both sides; ratios of time, and the worst."""
    people = sum(len(photo.people) for photo, _, _ in rows)
    columns = []
    for answers in ([(photo, one) for photo, one, _ in rows], [(photo, other) for photo, _, other in rows]):
        found = sum(len(answer.names) for _, answer in answers)
        right = sum(_right(photo.people, answer.names) for photo, answer in answers)
        columns.append(f"{found:5d} {right:5d} {sum(bool(answer.names) for _, answer in answers):5d}")
    finds = [one.find / other.find for _, one, other in rows]
    whole = sum(one.whole for _, one, _ in rows) / sum(other.whole for _, _, other in rows)
    each = [one.whole / other.whole for _, one, other in rows]
    total = sum(one.find for _, one, _ in rows) / sum(other.find for _, _, other in rows)
    print(
        f"{kind:<10} {len(rows):6d} {people:6d} | {columns[0]} | {columns[1]} | find {total:.3f} (median "
        f"{statistics.median(finds):.3f}, worst {max(finds):.3f}), all {whole:.3f} (worst {max(each):.3f})",
        flush=True,
    )


def _right(people: tuple[str | None, ...], names: list[str | None]) -> int:
    left = list(names)
    count = 0
    for person in people:
        if person in left:
            left.remove(person)
            count += 1
    return count


class Ours:
    """Sightline's detector and encoder, in this process."""

    def __init__(self, root: Path, max_side: int) -> None:
        self._detector, self._encoder = DlibDetector(ImageLimits(), max_side), DlibEncoder()
        self._known = {
            path.stem: self._encoder.encode(self._detector.find(path.read_bytes()).chips[:1])[0]
            for path in (root / "known").iterdir()
        }

    def answer(self, data: bytes) -> Answer:
        started = time.process_time()
        found = self._detector.find(data)
        find = time.process_time() - started
        encodings = self._encoder.encode(found.chips)
        return Answer(_named(self._known, encodings), find, time.process_time() - started)


class Theirs:
    """face_recognition, used as in its tutorial."""

    def __init__(self, root: Path) -> None:
        self._library: Any = import_face_recognition()
        self._known = {
            path.stem: self._library.face_encodings(_upright(path.read_bytes()))[0]
            for path in (root / "known").iterdir()
        }

    def answer(self, data: bytes) -> Answer:
        started = time.process_time()
        pixels = _upright(data)
        boxes = self._library.face_locations(pixels)
        find = time.process_time() - started
        encodings = self._library.face_encodings(pixels, boxes)
        return Answer(_named(self._known, encodings), find, time.process_time() - started)


def _upright(data: bytes) -> Any:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def _named(known: dict[str, Any], encodings: Any) -> list[str | None]:
    names: list[str | None] = []
    for encoding in encodings:
        distance, name = min((float(np.linalg.norm(vector - encoding)), name) for name, vector in known.items())
        names.append(name if distance <= TOLERANCE else None)
    return names


# ---- photos


def photos(root: Path) -> Iterator[Photo]:
    """Yield all photos, the same in every run."""
    rng = random.Random(4)
    portraits = {
        path.stem: _open(path) for path in sorted(root.rglob("*.*")) if path.stem in WHO["known"] | WHO["unknown"]
    }
    for path in sorted(root.rglob("*.*")):
        yield Photo("plain", path.stem, path.read_bytes(), _people(path.stem))
    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "small": lambda image: ImageOps.contain(image, (300, 300)),
        "dark": lambda image: image.point(lambda value: value * 0.3),
        "enlarged": lambda image: image.resize(_with_pixels(image, 12_000_000), Image.Resampling.LANCZOS),
    }
    for kind, change in changes.items():
        for stem, image in portraits.items():
            if kind != "enlarged" or stem in ("obama2", "biden", "rose_leslie2", "stranger_johnsnow"):
                yield Photo(kind, stem, _jpeg(change(image)), _people(stem))
    for stem in ("obama2", "rose_leslie2", "biden2"):
        exif = Image.Exif()
        exif[0x0112] = 6
        yield Photo("exif", stem, _jpeg(portraits[stem].transpose(Image.Transpose.ROTATE_90), exif=exif), _people(stem))
    for large, little in (("obama2", "rose_leslie2"), ("biden2", "obama"), ("rose_leslie2", "alex_lacamoire2")):
        for share in (0.025, 0.04, 0.06):
            scene = _backdrop(4000, 3000, portraits["lin-manuel_miranda"])
            _paste(scene, portraits[large], 0, 0, height=3000)
            _paste(scene, portraits[little], 3300, 900, face=round(4000 * share))
            yield Photo("bystander", f"{large}-{share}", _jpeg(scene), _people(large) + _people(little))
    for number, share in enumerate((0.02, 0.03, 0.05, 0.08)):
        scene = _backdrop(4000, 3000, portraits["lin-manuel_miranda"])
        chosen = rng.sample(sorted(portraits), 5)
        for place, stem in enumerate(chosen):
            _paste(scene, portraits[stem], 780 * place, 300, face=round(4000 * share * rng.uniform(0.8, 1.2)))
        yield Photo("group", f"{number}-{share}", _jpeg(scene), sum((_people(stem) for stem in chosen), ()))
    for stem, side in (("obama2", 80), ("rose_leslie2", 110), ("biden2", 150), ("alex_lacamoire2", 200)):
        scene = _backdrop(6000, 4000, portraits["lin-manuel_miranda"])
        _paste(scene, portraits[stem], 3900, 1500, face=side)
        yield Photo("landscape", f"{stem}-{side}", _jpeg(scene), _people(stem))


def _people(stem: str) -> tuple[str | None, ...]:
    if stem == "obama_and_biden":
        return ("obama", "biden", None)
    if stem == "two_people":
        return ("obama", "biden")
    return (next((name for name in WHO["known"] if stem.startswith(name)), None),)


def _open(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def _with_pixels(image: Image.Image, pixels: int) -> tuple[int, int]:
    scale = (pixels / (image.width * image.height)) ** 0.5
    return round(image.width * scale), round(image.height * scale)


def _backdrop(width: int, height: int, image: Image.Image) -> Image.Image:
    """Make a background without a face: blurred colours with grain."""
    blurred = image.resize((40, 30)).filter(ImageFilter.GaussianBlur(3)).resize((width, height))
    grain = Image.effect_noise((width, height), 12).convert("RGB")
    return Image.blend(blurred, grain, 0.15)


def _paste(scene: Image.Image, portrait: Image.Image, left: int, top: int, *, height: int = 0, face: int = 0) -> None:
    """Paste a portrait, scaled to `height` or to a face about `face` wide (pixels)."""
    scale = height / portrait.height if height else face / (FACE_OF_PHOTO * portrait.width)
    size = round(portrait.width * scale), round(portrait.height * scale)
    scene.paste(portrait.resize(size, Image.Resampling.LANCZOS), (left, top))


def _jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
