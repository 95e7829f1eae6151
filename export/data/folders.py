"""Data sets of picture files: a folder per class, train/ and val/ of such folders, or a CSV of paths and labels.

Files are read as they are needed, never all at once: a hundred thousand photos train in the memory of a few.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.data.datasets import DataSet, Labels, Split, sha256_of_files, stratified
from export.progress import say
from serving.contract.card import Class, Source
from serving.contract.errors import BadImage, DataNotFound, InvalidData
from serving.contract.image import Pixels, decode_image
from serving.contract.image_limits import ImageLimits
from serving.contract.preprocessing import Preprocessing

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".ppm", ".jp2"}
TRAIN_FOLDERS, VALIDATION_FOLDERS, TEST_FOLDERS = ("train", "training"), ("val", "valid", "validation"), ("test",)
CSV_COLUMNS = {"path": ("path", "file", "filename", "image"), "label": ("label", "class", "category")}
LISTED = 10  # unreadable files that are named; the others are counted
READERS = 4  # threads: decoding leaves the interpreter's lock
AT_ONCE = 1024  # files whose check is under way
SHUFFLED = 50_000  # paths, not pictures


@dataclass(frozen=True, slots=True)
class Listing:
    """Picture files and the names of their classes, as they were found: by split, `train`, `validation`, `test`."""

    files: dict[str, list[tuple[Path, str]]]


class FileSplit:
    """A split of picture files. paths: n files that can be read; labels: int (n,)."""

    def __init__(self, paths: Sequence[Path], labels: Labels, preprocessing: Preprocessing) -> None:
        self.paths = list(paths)
        self._labels = labels
        self.preprocessing = preprocessing

    @property
    def labels(self) -> Labels:
        return self._labels

    def __len__(self) -> int:
        return len(self.paths)

    def tensors(self, indices: Sequence[int]) -> npt.NDArray[Any]:
        with ThreadPoolExecutor(READERS) as readers:
            return np.stack(list(readers.map(lambda index: self._tensor(self.paths[index]), indices)))

    def pictures(self, indices: Sequence[int]) -> list[Pixels]:
        return [read_picture(self.paths[index]) for index in indices]

    def subset(self, indices: Sequence[int]) -> "FileSplit":
        chosen = np.asarray(indices, np.int64)
        return FileSplit([self.paths[index] for index in chosen], self._labels[chosen], self.preprocessing)

    def joined(self, other: Split) -> "FileSplit":
        assert isinstance(other, FileSplit)
        return FileSplit(self.paths + other.paths, np.concatenate([self.labels, other.labels]), self.preprocessing)

    def batches(self, size: int) -> Any:
        return self._read(self._files()).batch(size)

    def shuffled_batches(self, size: int, seed: int) -> Any:
        return self._read(self._files().shuffle(min(len(self), SHUFFLED), seed=seed)).batch(size)

    def _tensor(self, path: Path) -> npt.NDArray[Any]:
        return self.preprocessing.apply(read_picture(path))

    def _files(self) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(([str(path) for path in self.paths], self._labels))

    def _read(self, files: Any) -> Any:
        """Paths to tensors, by the same code that serves. files: a tf.data.Dataset of (path, label)."""
        import tensorflow as tf

        p = self.preprocessing
        dtype = tf.uint8 if p.dtype == "uint8" else tf.float32

        def read(path: Any, label: Any) -> Any:
            tensor = tf.numpy_function(lambda name: self._tensor(Path(name.decode())), [path], dtype, stateful=False)
            return tf.ensure_shape(tensor, (p.height, p.width, p.channels)), label

        return files.map(read, num_parallel_calls=READERS, deterministic=True)


def read_picture(path: Path) -> Pixels:
    """A picture file's pixels: uint8 (H, W, 3). Raises BadImage."""
    return decode_image(path.read_bytes(), ImageLimits(max_image_bytes=1 << 40))


def load_pictures(
    path: Path, preprocessing: Preprocessing, *, seed: int, strict: bool, validation_share: float, test_share: float
) -> DataSet:
    """A data set of picture files, screened and split.

    path: a folder or a CSV file. Splits that the layout does not have are taken from the training pictures, stratified,
    by the seed. strict: a file that cannot be read is an error; otherwise it is named, counted and left out.
    Raises DataNotFound, InvalidData.
    """
    listing = readable(listed(path), strict)
    names = sorted({name for files in listing.files.values() for _, name in files})
    if len(names) < 2:
        raise InvalidData(
            f"{path} has {len(names)} class with pictures ({', '.join(names) or 'none'}); a classifier needs two",
            hint="Give a folder with a folder per class, train/ and val/ of such folders, or a CSV of path and label.",
        )
    splits = {split: _file_split(files, names, preprocessing) for split, files in listing.files.items() if files}
    splits = _completed(splits, seed, validation_share, test_share)
    paths = sorted(p for split in splits.values() for p in split.paths)
    return DataSet(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        labels=tuple(Class(name, name) for name in names),
        source=Source("dataset", path.name, sha256_of_files(paths)),
        preprocessing=preprocessing,
    )


def listed(path: Path) -> Listing:
    """The picture files of a folder or a CSV. Raises DataNotFound where the layout is none that is known."""
    if path.is_file():
        return Listing({"train": _of_csv(path)})
    parts = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in (("train", TRAIN_FOLDERS), ("validation", VALIDATION_FOLDERS), ("test", TEST_FOLDERS))
    }
    if parts["train"] is None:
        return Listing({"train": _of_classes(path)})
    found = {split: _of_classes(folder) if folder else [] for split, folder in parts.items()}
    if found["validation"] and not found["test"]:
        # what a folder calls val/ was kept apart by its makers: it judges, and training takes its own validation split
        found = {"train": found["train"], "validation": [], "test": found["validation"]}
    return Listing(found)


def readable(listing: Listing, strict: bool) -> Listing:
    """The listing without files that cannot be decoded to their end. Raises InvalidData for them when strict."""
    total = sum(len(files) for files in listing.files.values())
    say(f"checking {total:,} pictures")
    broken: list[str] = []
    kept = {split: list(_screened(files, broken)) for split, files in listing.files.items()}
    if broken:
        for line in broken[:LISTED]:
            say(f"  unreadable: {line}")
        say(f"{len(broken):,} of {total:,} pictures cannot be read and are left out")
        if strict:
            raise InvalidData(
                f"{len(broken)} pictures cannot be read; the first: {broken[0]}", hint="Leave out --strict."
            )
    return Listing(kept)


def record_split(splits: Mapping[str, Split], labels: Sequence[Class], path: Path) -> None:
    """Write which file is in which split: a CSV of split, label, path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "label", "path"))
        for name, split in splits.items():
            assert isinstance(split, FileSplit)
            for picture, label in zip(split.paths, split.labels, strict=True):
                writer.writerow((name, labels[label].name, picture))


def _screened(files: list[tuple[Path, str]], broken: list[str]) -> Iterable[tuple[Path, str]]:
    with ThreadPoolExecutor(READERS) as readers:
        remaining = iter(files)
        while some := list(islice(remaining, AT_ONCE)):
            for entry, problem in zip(some, readers.map(lambda entry: _problem(entry[0]), some), strict=True):
                if problem is None:
                    yield entry
                else:
                    broken.append(f"{entry[0]}: {problem}")


def _problem(path: Path) -> str | None:
    try:
        read_picture(path)
    except BadImage as exc:
        return exc.detail
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _of_classes(folder: Path) -> list[tuple[Path, str]]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataNotFound(
            f"{folder} holds no folders: there are no classes in it",
            hint="Put the pictures of each class into a folder of its own, named after the class.",
        )
    return [
        (path, entry.name)
        for entry in classes
        for path in sorted(entry.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def _of_csv(path: Path) -> list[tuple[Path, str]]:
    """Rows of path and label; a path is relative to the CSV's folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = {
                wanted: next((c for c in reader.fieldnames or () if c.strip().lower() in names), None)
                for wanted, names in CSV_COLUMNS.items()
            }
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidData(f"{path} is not a CSV file: {exc}") from exc
    picture, label = columns["path"], columns["label"]
    if picture is None or label is None:
        raise InvalidData(f"{path} needs a header with the columns path and label", hint="First line: path,label")
    return [(path.parent / row[picture], (row[label] or "").strip()) for row in rows if row[picture] and row[label]]


def _file_split(files: list[tuple[Path, str]], names: list[str], preprocessing: Preprocessing) -> FileSplit:
    places = {name: index for index, name in enumerate(names)}
    return FileSplit([p for p, _ in files], np.array([places[name] for _, name in files], np.int64), preprocessing)


def _completed(
    splits: dict[str, FileSplit], seed: int, validation_share: float, test_share: float
) -> dict[str, FileSplit]:
    complete = dict(splits)
    if "train" not in complete:
        raise InvalidData("there is no training picture that can be read")
    for name, share in (("test", test_share), ("validation", validation_share)):
        if name not in complete:
            _check_counts(complete["train"], 2 if name == "validation" else 3)
            kept, held = stratified(complete["train"].labels, share, seed)
            complete[name] = complete["train"].subset(held.tolist())
            complete["train"] = complete["train"].subset(kept.tolist())
    return complete


def _check_counts(train: FileSplit, fewest: int) -> None:
    counts = Counter(train.labels.tolist())
    short = sorted(label for label, n in counts.items() if n < fewest)
    if short:
        example = train.paths[int(np.flatnonzero(train.labels == short[0])[0])]
        raise InvalidData(
            f"{len(short)} classes have fewer than {fewest} pictures (the one of {example.parent.name} has "
            f"{counts[short[0]]}): too few for a split",
            hint="Add pictures, or leave the class out.",
        )


Loader = Callable[[], DataSet]
