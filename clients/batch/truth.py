"""The true label of a picture, where it is known: from a truth column, or from the name of its folder."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from serving.contract.names import nfc

KNOWN_SHARE = 0.5  # of the pictures whose folder is named like a label, for folders to be taken as the truth


def plain_label(name: str) -> str:
    """Reduce a label to lower-case letters and digits, as folders are named. `T-shirt/top` is `tshirttop`."""
    return "".join(char for char in nfc(name).casefold() if char.isalnum())


@dataclass(frozen=True, slots=True)
class Spelling:
    """The labels of a model by the names that people give them.

    exact: by their names in NFC; plain: by their plain names, those that two labels share left out (C, C++).
    """

    exact: dict[str, str]
    plain: dict[str, str]

    @classmethod
    def of_labels(cls, labels: Iterable[str]) -> Self:
        known = [label for label in dict.fromkeys(labels) if label]
        shared = Counter(plain_label(label) for label in known)
        plain = {plain_label(label): label for label in known}
        unique = {name: label for name, label in plain.items() if name and shared[name] == 1}
        return cls({nfc(label): label for label in known}, unique)

    def of(self, name: str) -> str | None:
        """The label that a name means; None where it means none."""
        return self.exact.get(nfc(name)) or self.plain.get(plain_label(name))


@dataclass(frozen=True, slots=True)
class Truths:
    """The source of true labels: a column, the folders' names, or, where both are False, none."""

    spelling: Spelling
    column: bool
    folders: bool

    def of(self, path: str, given: str) -> str:
        """The true label in the spelling of the model's labels, or "". given: the source's truth, or ""."""
        if self.column:
            return self.spelling.of(given) or given
        return self.spelling.of(folder_name(path)) or "" if self.folders else ""


def known_truths(pictures: Iterable[tuple[str, str]], labels: Iterable[str]) -> Truths:
    """Find out whether a column or the folders give the truth of these pictures.

    pictures: (path, the source's truth, or ""). labels: those of the model, read after `pictures`; "" is none.
    The source's truth counts; where it gives none, the folders' names do, if at least half of the pictures lie in a
    folder that is named like a label.
    """
    given, total, folders = False, 0, Counter[str]()
    for path, truth in pictures:
        given = given or bool(truth)
        total += 1
        folders[folder_name(path)] += 1
    spelling = Spelling.of_labels(labels)
    known = sum(count for folder, count in folders.items() if spelling.of(folder))
    return Truths(spelling, given, bool(total) and not given and known >= KNOWN_SHARE * total)


def folder_name(path: str) -> str:
    """The name of the folder that a picture lies in. \\ counts as /: lists come from Windows, too."""
    return _last_part(path.replace("\\", "/").rpartition("/")[0])


@lru_cache(maxsize=4096)
def _last_part(folder: str) -> str:
    return os.path.basename(folder.rstrip("/"))
