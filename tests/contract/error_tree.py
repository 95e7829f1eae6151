"""Every class of error."""

from collections.abc import Iterator

from serving.contract.errors import SightlineError


def tree(kind: type[SightlineError] = SightlineError) -> Iterator[type[SightlineError]]:
    """Yield an error and all that derive from it."""
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)
