"""Data sets of image files: a folder per class, train/ and val/ of such folders, or a CSV of paths and labels.

Files are read when they are needed, never all at once: a hundred thousand photos train in the memory of a few.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
LISTED = 10  # unreadable files that are named; the rest are counted
READERS = 4  # threads; decoding releases the GIL
AT_ONCE = 1024  # files that are checked at the same time
SHUFFLED = 50_000  # paths, not images


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and the names of their classes, by split: `train`, `validation`, `test`."""

    files: dict[str, list[tuple[Path, str]]]


class FileSplit:
    """A split of image files. paths: n readable files; labels: int (n,)."""

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
        return [read_photo(self.paths[index]) for index in indices]

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
        return self.preprocessing.apply(read_photo(path))

    def _files(self) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(([str(path) for path in self.paths], self._labels))

    def _read(self, files: Any) -> Any:
        """Read and preprocess with the code that serves. files: a tf.data.Dataset of (path, label)."""
        import tensorflow as tf

        p = self.preprocessing
        dtype = tf.uint8 if p.dtype == "uint8" else tf.float32

        def read(path: Any, label: Any) -> Any:
            tensor = tf.numpy_function(lambda name: self._tensor(Path(name.decode())), [path], dtype, stateful=False)
            return tf.ensure_shape(tensor, (p.height, p.width, p.channels)), label

        return files.map(read, num_parallel_calls=READERS, deterministic=True)


def read_photo(path: Path) -> Pixels:
    """Decode an image file: uint8 (H, W, 3). Raises BadImage."""
    return decode_image(path.read_bytes(), ImageLimits(max_image_bytes=1 << 40))


def load_photos(
    path: Path, preprocessing: Preprocessing, *, seed: int, strict: bool, validation_share: float, test_share: float
) -> DataSet:
    """Check the image files of a folder or CSV and split them.

    path: a folder or a CSV file. A split that the layout lacks is taken from the training images, stratified; the seed
    decides which. strict: an unreadable file is an error; otherwise it is named, counted and left out.
    Raises DataNotFound, InvalidData.
    """
    listing = check_files(list_files(path), strict)
    names = sorted({name for files in listing.files.values() for _, name in files})
    if len(names) < 2:
        raise InvalidData(
            f"{path} has {len(names)} class with images ({', '.join(names) or 'none'}); a classifier needs two.",
            hint="Give a folder with a folder per class, train/ and val/ of such folders, or a CSV of path and label.",
        )
    splits = {split: _file_split(files, names, preprocessing) for split, files in listing.files.items() if files}
    splits = _with_missing_splits(splits, seed, validation_share, test_share)
    paths = sorted(p for split in splits.values() for p in split.paths)
    return DataSet(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        labels=tuple(Class(name, name) for name in names),
        source=Source("dataset", path.name, sha256_of_files(paths)),
        preprocessing=preprocessing,
    )


def list_files(path: Path) -> Listing:
    """List the image files of a folder or a CSV. Raises DataNotFound for an unknown layout."""
    if path.is_file():
        return Listing({"train": _from_csv(path)})
    parts = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in (("train", TRAIN_FOLDERS), ("validation", VALIDATION_FOLDERS), ("test", TEST_FOLDERS))
    }
    if parts["train"] is None:
        return Listing({"train": _from_class_folders(path)})
    found = {split: _from_class_folders(folder) if folder else [] for split, folder in parts.items()}
    if found["validation"] and not found["test"]:
        # val/ was held out by the makers of the folder: test on it, and take a validation split from train/
        found = {"train": found["train"], "validation": [], "test": found["validation"]}
    return Listing(found)


def check_files(listing: Listing, strict: bool) -> Listing:
    """Leave out the files that cannot be decoded to their end; with `strict`, raise InvalidData for them."""
    total = sum(len(files) for files in listing.files.values())
    say(f"checking {total:,} images")
    broken: list[str] = []
    kept = {split: list(_checked(files, broken)) for split, files in listing.files.items()}
    if broken:
        for line in broken[:LISTED]:
            say(f"  unreadable: {line}")
        say(f"{len(broken):,} of {total:,} images cannot be read and are left out")
        if strict:
            raise InvalidData(
                f"{len(broken)} images cannot be read; the first is {broken[0].rstrip('.')}.",
                hint="Repair or remove them, or leave out --strict.",
            )
    return Listing(kept)


def record_split(splits: Mapping[str, Split], labels: Sequence[Class], path: Path) -> None:
    """Write a CSV of split, label and path: the split that each file is in."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "label", "path"))
        for name, split in splits.items():
            assert isinstance(split, FileSplit)
            for picture, label in zip(split.paths, split.labels, strict=True):
                writer.writerow((name, labels[label].name, picture))


def _checked(files: list[tuple[Path, str]], broken: list[str]) -> Iterable[tuple[Path, str]]:
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
        read_photo(path)
    except BadImage as exc:
        return exc.detail
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _from_class_folders(folder: Path) -> list[tuple[Path, str]]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataNotFound(
            f"{folder} contains no folders, so it has no classes.",
            hint="Put the images of each class into a folder of its own, named after the class.",
        )
    return [
        (path, entry.name)
        for entry in classes
        for path in sorted(entry.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def _from_csv(path: Path) -> list[tuple[Path, str]]:
    """Read rows of path and label; a path is relative to the CSV's folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = {
                wanted: next((c for c in reader.fieldnames or () if c.strip().lower() in names), None)
                for wanted, names in CSV_COLUMNS.items()
            }
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvalidData(f"{path} is not a CSV file: {exc}.", hint="Save it as UTF-8.") from exc
    picture, label = columns["path"], columns["label"]
    if picture is None or label is None:
        raise InvalidData(
            f"{path} needs a header with the columns path and label.", hint="Make the first line `path,label`."
        )
    return [(path.parent / row[picture], (row[label] or "").strip()) for row in rows if row[picture] and row[label]]


def _file_split(files: list[tuple[Path, str]], names: list[str], preprocessing: Preprocessing) -> FileSplit:
    places = {name: index for index, name in enumerate(names)}
    return FileSplit([p for p, _ in files], np.array([places[name] for _, name in files], np.int64), preprocessing)


def _with_missing_splits(
    splits: dict[str, FileSplit], seed: int, validation_share: float, test_share: float
) -> dict[str, FileSplit]:
    complete = dict(splits)
    if "train" not in complete:
        raise InvalidData("There is no readable training image.")
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
            f"{len(short)} classes have fewer than {fewest} images ({example.parent.name} has {counts[short[0]]}): "
            "too few for a split.",
            hint="Add images, or leave the classes out.",
        )
