"""The true label of a picture, where it is known: from a truth column, or from the name of its folder."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

KNOWN_SHARE = 0.5  # of the pictures whose folder is named like a label, for folders to be taken as the truth


def plain_label(name: str) -> str:
    """Reduce a label to lower-case letters and digits, as folders are named. `T-shirt/top` is `tshirttop`."""
    return "".join(char for char in name.casefold() if char.isalnum())


@dataclass(frozen=True, slots=True)
class Truths:
    """The source of true labels: a column, the folders' names, or, where both are False, none.

    spelling: the model's labels by their plain names.
    """

    spelling: dict[str, str]
    column: bool
    folders: bool

    def of(self, path: str, given: str) -> str:
        """The true label in the spelling of the model's labels, or "". given: the source's truth, or ""."""
        if self.column:
            return self.spelling.get(plain_label(given), given)
        return self.spelling.get(_folder(path), "") if self.folders else ""


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
        folders[_folder(path)] += 1
    spelling = {plain_label(label): label for label in labels if label}
    known = sum(count for folder, count in folders.items() if folder in spelling)
    return Truths(spelling, given, bool(total) and not given and known >= KNOWN_SHARE * total)


def _folder(path: str) -> str:
    return plain_label(PurePath(path).parent.name)
