"""Data sets of image files: a folder per class, train/ and val/ of such folders, or a CSV of paths and labels.

Files are read when they are needed, never all at once: a hundred thousand photos train in the memory of a few.
"""

import csv
import io
import os
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
from serving.contract.names import existing_path, is_utf8, nfc, readings_text, shown_path
from serving.contract.picture_files import LeftOut, folder_reason, name_reason, picture_files
from serving.contract.preprocessing import Preprocessing
from serving.contract.text_files import is_marked, read_text, unguarded

SPLIT_FOLDERS = {  # in lower case; the first that is there counts
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
CSV_COLUMNS = {"path": ("path", "file", "filename", "image"), "label": ("label", "class", "category")}
NO_CLASS, OTHERS = "not in a class folder", "beside train/ and the other splits"
INCOMPLETE = "without a path or a label"
LISTED = 10  # unreadable files that are named; the rest are counted
READERS = 4  # threads; decoding releases the GIL
AT_ONCE = 1024  # files that are checked at the same time
SHUFFLED = 50_000  # paths, not images


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and the names of their classes, by split: `train`, `validation`, `test`.

    classes: every name in NFC, those of classes without images too.
    """

    files: dict[str, list[tuple[Path, str]]]
    classes: frozenset[str]


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

    def _tensor_of(self, name: bytes) -> npt.NDArray[Any]:
        return self._tensor(Path(os.fsdecode(name)))

    def _files(self) -> Any:
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(([os.fsencode(path) for path in self.paths], self._labels))

    def _read(self, files: Any) -> Any:
        """Read and preprocess with the code that serves. files: a tf.data.Dataset of (path, label)."""
        import tensorflow as tf

        p = self.preprocessing
        dtype = tf.uint8 if p.dtype == "uint8" else tf.float32

        def read(path: Any, label: Any) -> Any:
            tensor = tf.numpy_function(
                lambda name: self._tensor(Path(os.fsdecode(name))), [path], dtype, stateful=False
            )
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
    listing = list_files(path)
    check_classes(listing)
    listing = check_files(listing, strict)
    check_classes(listing)
    names = sorted(listing.classes)
    if len(names) < 2:
        raise InvalidData(
            f"{shown_path(str(path))} has {len(names)} class with images ({', '.join(names) or 'none'}); a classifier "
            "needs two.",
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
        source=Source("dataset", shown_path(nfc(path.name)), sha256_of_files(paths)),
        preprocessing=preprocessing,
    )


def list_files(path: Path) -> Listing:
    """List the image files of a folder or a CSV, and print what is left out. Raises DataNotFound, InvalidData."""
    left_out = LeftOut()
    listing = _from_csv(path, left_out) if path.is_file() else _from_folder(path, left_out)
    for line in left_out.lines():
        say(line)
    return listing


def check_classes(listing: Listing) -> None:
    """Refuse classes that no model can learn or that people would mistake for one another. Raises InvalidData."""
    spellings: dict[str, str] = {}
    for name in sorted(listing.classes):
        if not is_utf8(name):
            raise InvalidData(
                f"The class name {shown_path(name)!r} is not UTF-8; it may be {readings_text(name) or 'damaged'}.",
                hint="Rename the folder, or all of them with `convmv -r -f ENCODING -t utf8 --notest FOLDER`.",
            )
        other = spellings.setdefault(nfc(name.casefold()), name)
        if other != name:
            raise InvalidData(
                f"The classes {other!r} and {name!r} differ in case alone.",
                hint="Spell the class alike in every folder or row, or give two classes names of their own.",
            )
    trained = Counter(name for _, name in listing.files["train"])
    for name in sorted(listing.classes):
        if not trained[name]:
            others = {split: sum(name == own for _, own in files) for split, files in listing.files.items()}
            elsewhere = ", ".join(f"{count} of {split}" for split, count in others.items() if count)
            raise InvalidData(
                f"The class {name!r} has no training images that can be read ({elsewhere or 'and none elsewhere'}).",
                hint="Add images of that class, correct its spelling, or remove its folder.",
            )


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
    return Listing(kept, listing.classes)


def record_split(splits: Mapping[str, Split], labels: Sequence[Class], path: Path) -> None:
    """Write a CSV of split, label and path: the split that each file is in."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "label", "path"))
        for name, split in splits.items():
            assert isinstance(split, FileSplit)
            for picture, label in zip(split.paths, split.labels, strict=True):
                writer.writerow((name, labels[label].name, shown_path(str(picture))))


def _checked(files: list[tuple[Path, str]], broken: list[str]) -> Iterable[tuple[Path, str]]:
    with ThreadPoolExecutor(READERS) as readers:
        remaining = iter(files)
        while some := list(islice(remaining, AT_ONCE)):
            for entry, problem in zip(some, readers.map(lambda entry: _problem(entry[0]), some), strict=True):
                if problem is None:
                    yield entry
                else:
                    broken.append(f"{shown_path(str(entry[0]))}: {shown_path(problem)}")


def _problem(path: Path) -> str | None:
    try:
        read_photo(path)
    except BadImage as exc:
        return exc.detail
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _from_folder(path: Path, left_out: LeftOut) -> Listing:
    parts = {split: _split_folder(path, names) for split, names in SPLIT_FOLDERS.items()}
    if parts["train"] is None:
        files, classes = _from_class_folders(path, left_out)
        return Listing({"train": files}, classes)
    _note_others(path, [part for part in parts.values() if part], left_out)
    found = {split: _from_class_folders(part, left_out) for split, part in parts.items() if part}
    listing = {split: found[split][0] if split in found else [] for split in SPLIT_FOLDERS}
    if listing["validation"] and not listing["test"]:
        # val/ was held out by the makers of the folder: test on it, and take a validation split from train/
        listing = {"train": listing["train"], "validation": [], "test": listing["validation"]}
    return Listing(listing, frozenset().union(*(classes for _, classes in found.values())))


def _split_folder(path: Path, names: Sequence[str]) -> Path | None:
    folders = {entry.name.lower(): entry for entry in sorted(path.iterdir(), reverse=True) if entry.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _note_others(path: Path, parts: Sequence[Path], left_out: LeftOut) -> None:
    for entry in sorted(path.iterdir()):
        if entry not in parts:
            left_out.add(name_reason(entry.name) or OTHERS, entry.name)


def _from_class_folders(folder: Path, left_out: LeftOut) -> tuple[list[tuple[Path, str]], frozenset[str]]:
    """(image files with their classes, all classes). A folder is a class; its name is taken in NFC."""
    files, classes = [], set()
    for entry in sorted(folder.iterdir()):
        if reason := folder_reason(entry.name) if entry.is_dir() else name_reason(entry.name) or NO_CLASS:
            left_out.add(reason, entry.name)
            continue
        name = nfc(entry.name)
        classes.add(name)
        files += [(Path(path), name) for path in picture_files(str(entry), left_out)]
    if not classes:
        raise DataNotFound(
            f"{folder} contains no folders, so it has no classes.",
            hint="Put the images of each class into a folder of its own, named after the class.",
        )
    return files, frozenset(classes)


def _from_csv(path: Path, left_out: LeftOut) -> Listing:
    """Read rows of path and label; a path is relative to the CSV's folder.

    A file with a byte order mark comes from a spreadsheet or the review page: the apostrophes before formulas go.
    """
    text = read_text(path)
    clean = unguarded if is_marked(path) else str
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        columns = {
            wanted: next((c for c in reader.fieldnames or () if c.strip().lower() in names), None)
            for wanted, names in CSV_COLUMNS.items()
        }
        rows = list(reader)
    except csv.Error as exc:
        raise InvalidData(f"{path} is not a CSV file: {exc}.", hint="Save it as UTF-8.") from exc
    picture, label = columns["path"], columns["label"]
    if picture is None or label is None:
        raise InvalidData(
            f"{path} needs a header with the columns path and label.", hint="Make the first line `path,label`."
        )
    files = []
    for number, row in enumerate(rows, 1):
        name = nfc(clean((row[label] or "").strip()))
        if row[picture] and name:
            files.append((Path(existing_path(str(path.parent / clean(row[picture])))), name))
        else:
            left_out.add(INCOMPLETE, f"row {number}")
    return Listing({"train": files}, frozenset(name for _, name in files))


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
            f"{len(short)} classes have fewer than {fewest} images ({shown_path(example.parent.name)} has "
            f"{counts[short[0]]}): too few for a split.",
            hint="Add images, or leave the classes out.",
        )
