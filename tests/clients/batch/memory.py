"""A source of pictures in memory, and what scores it."""

from collections.abc import Iterator
from pathlib import Path

from sightline import Client
from sightline.calls import PredictOptions

from clients.batch.journal import Journal
from clients.batch.scorer import Plan, Progress, Scorer
from clients.batch.sources import Input
from serving.contract.picture_files import LeftOut
from tests.clients.shades import Service, png


class Memory:
    """A source of `count` evenly gray pictures."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.data = png(200, side=8)
        self.left_out = LeftOut()

    def inputs(self) -> Iterator[Input]:
        return (Input(f"memory/some/longish/folder/name/{number:09}.png") for number in range(self.count))

    def read(self, path: str, locator: str) -> bytes:  # noqa: ARG002
        return self.data

    def close(self) -> None:
        """Nothing is open."""


def run_scorer(
    service: Service, journal: Journal, source: Memory, kind: type[Scorer] = Scorer, **plan: object
) -> Progress:
    """Score what is pending."""
    with Client(service.url) as client:
        return kind(source, journal, client, Plan(PredictOptions("shades", 1), 1, **plan)).run()  # type: ignore[arg-type]


def listed_journal(tmp_path: Path, source: Memory) -> Journal:
    """A new journal with the inputs of a source."""
    journal = Journal(str(tmp_path / "x.journal"))
    journal.list_inputs(source.inputs(), {})
    return journal
