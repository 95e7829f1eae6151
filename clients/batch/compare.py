"""`sightline compare-models A B SOURCE`: two models or versions over the same pictures."""

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
from sightline.calls import PredictOptions
from sightline.client import Client
from sightline.errors import BadImage, UsageError
from sightline.pictures import Upload
from sightline.results import Failed, Prediction

from clients.batch.score import SHOWN_LABELS, served_model
from clients.batch.sources import Columns, Input, Source, SourceOptions, open_source
from clients.batch.truth import known_truths
from clients.batch.writers import is_results
from clients.commands import client_options
from serving.contract.names import shown_path
from serving.contract.versions import number_of_version

EXACT_BELOW = 1000  # discordant pairs; above, the normal approximation is as good
PER_REQUEST = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """The two labels of a picture; None where it failed. truth: "" where it is unknown. path: in a tally, FOLDER/*."""

    path: str
    a: str | None
    b: str | None
    truth: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models over the same pictures.

    agreement: share of the pictures that both labelled. flips: (label of A, label of B, how many). With a truth:
    accuracy of each; only_a, only_b: pictures that only this one labelled correctly; p_value: McNemar's, the
    probability of so lopsided a split if both were equally good. None where no truth is known.
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
    """The two-sided p-value that A and B err equally often, from the pictures that only one labelled correctly.

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
    """Count the pictures of each folder with the same two labels, so that memory does not grow with the pictures."""
    return Counter(replace(pair, path=os.path.join(os.path.dirname(pair.path), "*")) for pair in pairs)


def compared(a: str, b: str, tally: Mapping[Pair, int]) -> Comparison:
    """Compare the labels of two models."""
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
@click.option("--only-pictures", is_flag=True, help="Leave out files that are no pictures.")
@click.option("--archive-encoding", help="Encoding of names in an archive that are not marked as UTF-8, such as cp949.")
@click.option("--path-column", help="Column of a table with the paths.")
@click.option("--truth-column", help="Column of a table with the true labels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@client_options
def compare_models(
    *,
    a: str,
    b: str,
    source: str,
    only_pictures: bool,
    archive_encoding: str | None,
    path_column: str | None,
    truth_column: str | None,
    as_json: bool,
    url: str,
    api_key: str | None,
    timeout: float,
) -> None:
    """Compare two models or versions over the pictures of SOURCE: agreement, flips and, with a truth, accuracy.

    The truth is a column of a table, or the names of the folders. Exit 1 when some pictures failed.
    """
    both = [options_of(name) for name in (a, b)]
    columns = Columns(path_column, truth_column)
    pictures = open_source(source, SourceOptions(columns, only_pictures, archive_encoding, is_results))
    with Client(url, api_key=api_key, timeout=timeout) as client, closing(pictures):
        labels = {label for one in both for label in labels_of(client, one)}
        tally = tallied(label_pairs(pictures, both, client))
    if not tally:
        raise UsageError(f"There is no picture in {source!r}.", hint="; ".join(pictures.left_out.lines()))
    for line in pictures.left_out.lines():
        click.echo(line, err=True)
    comparison = compared(a, b, with_truths(tally, labels))
    if as_json:
        click.echo(json.dumps(asdict(comparison)))
    else:
        show(comparison, Console(highlight=False))
    sys.exit(1 if comparison.failed else 0)


def options_of(name: str) -> PredictOptions:
    """Read `fashion`, or `fashion@3` for version 3. Raises UsageError."""
    model, _, version = name.partition("@")
    number = number_of_version(version) if version else None
    if not model or (version and number is None):
        raise UsageError(f"{name!r} is neither a model nor model@version.", hint="Write fashion or fashion@3.")
    return PredictOptions(model, 1, number)


def label_pairs(source: Source, both: Sequence[PredictOptions], client: Client) -> Iterator[Pair]:
    """Label every picture of the source twice."""
    inputs = source.inputs()
    with ThreadPoolExecutor(len(both)) as pool:
        while chunk := list(islice(inputs, PER_REQUEST)):
            members = [_member(source, one) for one in chunk]
            answers = pool.map(lambda one, sent=members: client.predict_uploads(sent, one, PER_REQUEST), both)
            for one, first, second in zip(chunk, *answers, strict=True):
                yield Pair(shown_path(one.path), _label(first), _label(second), one.truth)


def labels_of(client: Client, options: PredictOptions) -> tuple[str, ...]:
    """Read the labels of a model. Raises what `served_model` raises."""
    return served_model(client, options).labels


def with_truths(tally: Counter[Pair], labels: Iterable[str]) -> Counter[Pair]:
    """Add the true labels to a tally, in the spelling of the models' labels."""
    truths = known_truths(((pair.path, pair.truth) for pair in tally.elements()), labels)
    known: Counter[Pair] = Counter()
    for pair, count in tally.items():
        known[replace(pair, truth=truths.of(pair.path, pair.truth))] += count
    return known


def show(comparison: Comparison, console: Console) -> None:
    """Print the comparison for people."""
    a, b = escape(comparison.a), escape(comparison.b)
    labelled = comparison.pictures - comparison.failed
    console.print(f"{labelled} pictures labelled by both, {comparison.failed} failed")
    console.print(f"agreement: {comparison.agreement:.2%}")
    for old, new, count in comparison.flips[:SHOWN_LABELS]:
        console.print(f"flipped: {count} from {escape(old)} ({a}) to {escape(new)} ({b})")
    if comparison.p_value is None:
        console.print("no truth is known: name a truth column, or the folders like the labels")
        return
    accuracies = f"{a} {comparison.accuracy_a:.2%}, {b} {comparison.accuracy_b:.2%}"
    console.print(f"accuracy on {comparison.with_truth}: {accuracies}")
    console.print(f"only one correct: {a} {comparison.only_a}, {b} {comparison.only_b}")
    verdict = "a real difference" if comparison.p_value < 0.05 else "may be chance"
    console.print(f"McNemar's test: p = {comparison.p_value:.3g}, {verdict}")


def _member(source: Source, one: Input) -> Upload | Failed:
    try:
        return Upload(shown_path(one.path), source.read(one.path, one.locator))
    except BadImage as exc:
        return Failed(one.path, exc)


def _label(outcome: Prediction | Failed) -> str | None:
    return outcome.label if isinstance(outcome, Prediction) else None
