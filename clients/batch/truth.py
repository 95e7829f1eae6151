"""What a picture truly shows, where somebody knows: a truth column, or the name of the folder that it lies in."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

KNOWN_SHARE = 0.5  # of the pictures whose folder is named like a label, for folders to be taken as the truth


def plain_label(name: str) -> str:
    """A label as folders are named: lower case, letters and digits only. `T-shirt/top` is `tshirttop`."""
    return "".join(char for char in name.casefold() if char.isalnum())


@dataclass(frozen=True, slots=True)
class Truths:
    """Tells the true label of a picture. spelling: the model's labels by their plain names; column, folders: which
    of the two is believed; neither means that nothing is known."""

    spelling: dict[str, str]
    column: bool
    folders: bool

    def of(self, path: str, given: str) -> str:
        """The true label in the spelling of the model's labels, "" where unknown. given: by the source, or ""."""
        if self.column:
            return self.spelling.get(plain_label(given), given)
        return self.spelling.get(_folder(path), "") if self.folders else ""


def known_truths(pictures: Iterable[tuple[str, str]], labels: Iterable[str]) -> Truths:
    """How the truth of these pictures is known.

    pictures: (path, truth that the source gave, or ""). labels: all that the model answered, read after `pictures`;
    "" is none.
    A truth that the source gave counts; where it gave none, the folders' names do, if at least half of the pictures
    lie in a folder that is named like a label.
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
