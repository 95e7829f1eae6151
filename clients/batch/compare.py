"""`sightline compare-models A B SOURCE`: the same pictures to two models or versions, and what differs."""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice

import click
from rich.console import Console
from rich.markup import escape
from sightline.calls import Asked
from sightline.client import Client
from sightline.pictures import Upload
from sightline.results import Failed, Prediction

from clients.batch.score import SHOWN_LABELS, served_version
from clients.batch.sources import Columns, Input, Source, open_source, shown_path
from clients.batch.truth import known_truths
from clients.commands import client_options
from serving.contract.errors import BadImage, UnreadableFile, UsageError

EXACT_BELOW = 1000  # discordant pairs; from here on the normal approximation is as good
PER_REQUEST = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """One picture's two labels; None where it failed. truth: "" where unknown. path: in a tally, FOLDER/*."""

    path: str
    a: str | None
    b: str | None
    truth: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models over the same pictures.

    agreement: share of the pictures that both labelled. flips: (label of A, label of B, how many). With a truth:
    accuracy of each; only_a, only_b: pictures that only that one labelled rightly; p_value: McNemar's, the probability
    of so lopsided a split if both were equally good. None where no truth is known.
    """

    a: str
    b: str
    pictures: int
    failed: int
    agreement: float
    flips: list[tuple[str, str, int]]
    with_truth: int
    accuracy_a: float | None
    accuracy_b: float | None
    only_a: int | None
    only_b: int | None
    p_value: float | None


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p-value that A and B err equally often, from the pictures that one alone had right.

    Exact binomial below a thousand such pictures, chi-squared with continuity correction (one degree of freedom) above.
    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947; Edwards, 1948.
    """
    n = only_a + only_b
    if n == 0:
        return 1.0
    if n < EXACT_BELOW:
        tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
        return float(min(1.0, 2 * tail / 2**n))
    statistic = (abs(only_a - only_b) - 1) ** 2 / n
    return math.erfc(math.sqrt(statistic / 2))


def tallied(pairs: Iterable[Pair]) -> Counter[Pair]:
    """How many pictures of each folder got the same two labels: all that a comparison needs of millions of them."""
    return Counter(replace(pair, path=os.path.join(os.path.dirname(pair.path), "*")) for pair in pairs)


def compared(a: str, b: str, tally: Mapping[Pair, int]) -> Comparison:
    """What two models' labels of the same pictures say."""
    pictures = sum(tally.values())
    both = {pair: count for pair, count in tally.items() if pair.a is not None and pair.b is not None}
    labelled = sum(both.values())
    flips: Counter[tuple[str, str]] = Counter()
    for pair, count in both.items():
        if pair.a != pair.b:
            flips[str(pair.a), str(pair.b)] += count
    with_truth = {pair: count for pair, count in both.items() if pair.truth}
    known = sum(with_truth.values())
    right_a = sum(count for pair, count in with_truth.items() if pair.a == pair.truth)
    right_b = sum(count for pair, count in with_truth.items() if pair.b == pair.truth)
    only_a = sum(count for pair, count in with_truth.items() if pair.a == pair.truth != pair.b)
    only_b = sum(count for pair, count in with_truth.items() if pair.b == pair.truth != pair.a)
    return Comparison(
        a,
        b,
        pictures,
        pictures - labelled,
        1 - sum(flips.values()) / labelled if labelled else 0.0,
        [(old, new, count) for (old, new), count in flips.most_common()],
        known,
        right_a / known if known else None,
        right_b / known if known else None,
        only_a if known else None,
        only_b if known else None,
        mcnemar(only_a, only_b) if known else None,
    )


@click.command(
    "compare-models", epilog="Example: sightline compare-models fashion@3 fashion@4 test-pictures/ (name@version)"
)
@click.argument("a")
@click.argument("b")
@click.argument("source")
@click.option("--path-column", help="Of a table: the column with the paths.")
@click.option("--truth-column", help="Of a table: the column with the true label.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client_options
def compare_models(
    *,
    a: str,
    b: str,
    source: str,
    path_column: str | None,
    truth_column: str | None,
    as_json: bool,
    url: str,
    api_key: str | None,
    timeout: float,
) -> None:
    """Label the pictures of SOURCE by two models or versions: agreement, flips, and who is right where that is known.

    The truth is a truth column, or the folders' names. Exit 1 when some pictures failed.
    """
    asked = [asked_of(name) for name in (a, b)]
    pictures = open_source(source, Columns(path_column, truth_column))
    with Client(url, api_key=api_key, timeout=timeout) as client, closing(pictures):
        labels = {label for one in asked for label in labels_of(client, one)}
        tally = tallied(label_pairs(pictures, asked, client))
    if not tally:
        raise UsageError(f"there is no picture in {source!r}")
    comparison = compared(a, b, with_truths(tally, labels))
    if as_json:
        click.echo(json.dumps(asdict(comparison)))
    else:
        show(comparison, Console(highlight=False))
    sys.exit(1 if comparison.failed else 0)


def asked_of(name: str) -> Asked:
    """`fashion`, or `fashion@3` for version 3. Raises UsageError."""
    model, _, version = name.partition("@")
    if not model or (version and not version.isdecimal()):
        raise UsageError(f"{name!r} is neither a model nor model@version", hint="Say fashion or fashion@3.")
    return Asked(model, 1, int(version) if version else None)


def label_pairs(source: Source, asked: Sequence[Asked], client: Client) -> Iterator[Pair]:
    """Every picture of the source with its two labels."""
    inputs = source.inputs()
    with ThreadPoolExecutor(len(asked)) as pool:
        while chunk := list(islice(inputs, PER_REQUEST)):
            members = [_member(source, one) for one in chunk]
            answers = pool.map(lambda one, sent=members: client.predict_uploads(sent, one, PER_REQUEST), asked)
            for one, first, second in zip(chunk, *answers, strict=True):
                yield Pair(shown_path(one.path), _label(first), _label(second), one.truth)


def labels_of(client: Client, asked: Asked) -> tuple[str, ...]:
    """The labels that a model knows. Raises OperatorError where the service or the model is not there."""
    served_version(client, asked)
    card = client.model(asked.model).card
    return card.label_names if card else ()


def with_truths(tally: Counter[Pair], labels: Iterable[str]) -> Counter[Pair]:
    """The tally with what is known of each picture, in the spelling of the models' labels."""
    truths = known_truths(((pair.path, pair.truth) for pair in tally.elements()), labels)
    known: Counter[Pair] = Counter()
    for pair, count in tally.items():
        known[replace(pair, truth=truths.of(pair.path, pair.truth))] += count
    return known


def show(comparison: Comparison, console: Console) -> None:
    """The comparison, for people."""
    a, b = escape(comparison.a), escape(comparison.b)
    labelled = comparison.pictures - comparison.failed
    console.print(f"{labelled} pictures labelled by both, {comparison.failed} failed")
    console.print(f"agreement: {comparison.agreement:.2%}")
    for old, new, count in comparison.flips[:SHOWN_LABELS]:
        console.print(f"flipped: {count} from {escape(old)} ({a}) to {escape(new)} ({b})")
    if comparison.p_value is None:
        console.print("no truth is known: give a truth column, or folders named like the labels")
        return
    accuracies = f"{a} {comparison.accuracy_a:.2%}, {b} {comparison.accuracy_b:.2%}"
    console.print(f"accuracy on {comparison.with_truth}: {accuracies}")
    console.print(f"right alone: {a} {comparison.only_a}, {b} {comparison.only_b}")
    verdict = "a real difference" if comparison.p_value < 0.05 else "may well be chance"
    console.print(f"McNemar's test: p = {comparison.p_value:.3g}, {verdict}")


def _member(source: Source, one: Input) -> Upload | Failed:
    try:
        return Upload(one.path, source.read(one.path, one.locator))
    except (UnreadableFile, BadImage) as exc:
        return Failed(one.path, exc)


def _label(outcome: Prediction | Failed) -> str | None:
    return outcome.label if isinstance(outcome, Prediction) else None
