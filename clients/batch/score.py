"""`sightline score`: a source of pictures to a file with one row for each, resumable at any moment."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from sightline.calls import PredictOptions
from sightline.client import Client
from sightline.errors import SightlineError, UsageError
from sightline.results import Model

from clients.batch.errors import NotAJournal
from clients.batch.journal import Journal, journal_path, remove_journal
from clients.batch.ray_engine import WorkerConfig, run_on_ray
from clients.batch.rows import FAILED, OK
from clients.batch.scorer import FailureLimit, Plan, Progress, Scorer
from clients.batch.sources import Columns, Input, Source, SourceOptions, open_source
from clients.batch.truth import Spelling
from clients.batch.writers import check_output, is_results, write_rows
from clients.commands import as_usage_error, client_options
from serving.contract.names import is_utf8, readings_text, shown_path

SHOWN_LABELS = 20  # in the summary
Engine = Callable[[Journal, Callable[[Progress], None]], Progress]

LINE_SECONDS = 10.0  # between lines of progress where there is no terminal


@dataclass(frozen=True, slots=True)
class Job:
    """A source, its output, and the treatment of earlier results."""

    source: str
    output: str
    options: PredictOptions
    reading: SourceOptions = field(default_factory=SourceOptions)
    ordered: bool = False
    overwrite: bool = False
    retry_failed: bool = False
    changed_only: bool = False
    excel: bool = False

    def identity(self) -> str:
        """The settings that two commands must share to continue the same run, as JSON."""
        options = {name: getattr(self.options, name) for name in ("model", "top", "version", "label")}
        where = {"source": self.source, "at": os.path.abspath(self.source)}
        columns = {name: getattr(self.reading.columns, name) for name in ("path", "truth")}
        # Not in the journals of older versions, which continue: only what was asked for.
        others = {name: getattr(self.reading, name) for name in ("only_pictures", "archive_encoding")}
        asked = {name: value for name, value in others.items() if value}
        return json.dumps({**where, **options, **columns, **asked})

    @property
    def written(self) -> str:
        """The note that the output, in this form, is there."""
        return f"{shown_path(self.output)}{' for Excel' if self.excel else ''}"


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run. rows: of the file; answered: in this run, which took `seconds`.

    with_truth: rows that have a label and a truth; accuracy: the share of them whose label it is, None without any.
    left_out: (reason, how many) of the files that are no inputs.
    """

    output: str
    rows: int
    failed: int
    answered: int
    seconds: float
    labels: list[tuple[str, int]]
    reasons: list[tuple[str, int]]
    versions: list[tuple[str, int]]
    flips: list[tuple[str, str, int]]
    with_truth: int
    accuracy: float | None
    left_out: list[tuple[str, int]]
    notes: list[str]

    @property
    def per_second(self) -> float:
        """Pictures a second of this run."""
        return self.answered / self.seconds if self.seconds else 0.0


def failure_limit(text: str | None) -> FailureLimit:
    """Read `25` or `5%`. Raises click's BadParameter."""
    if text is None:
        return FailureLimit()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        return FailureLimit(share=float(match[1]) / 100)
    if text.isdecimal():
        return FailureLimit(count=int(text))
    raise click.BadParameter(f"{text!r} is neither a number nor a percentage such as 5%", param_hint="--max-failures")


@click.command(
    epilog="Example: sightline score photos/ --model fashion --out labels.csv. Killed? The same command continues."
)
@click.argument("source")
@click.option("--model", "-m", required=True, help="Name of the model.")
@click.option("--out", "-o", required=True, type=click.Path(), help="A .csv, .jsonl, .parquet or .sqlite file.")
@click.option("--version", type=int, help="Version of the model; by default the newest.")
@click.option("--label", help="Version of the model, by its label.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="How many labels to record.")
@click.option(
    "--ordered", is_flag=True, help="Keep the order of the inputs; by default rows come as they are answered."
)
@click.option("--overwrite", is_flag=True, help="Begin again and replace the output.")
@click.option("--retry-failed", is_flag=True, help="Try failed pictures again.")
@click.option(
    "--changed-only",
    is_flag=True,
    help="List the source anew; score what is new or changed, or was answered by another version.",
)
@click.option("--max-failures", metavar="N|P%", help="Stop when more than N, or P% of the rows, failed.")
@click.option(
    "--patience", default=300.0, show_default=True, help="Seconds to wait for a service that does not answer."
)
@click.option(
    "--concurrency", default=8, show_default=True, type=click.IntRange(1), help="Requests at a time, at most."
)
@click.option(
    "--per-request", default=64, show_default=True, type=click.IntRange(1), help="Pictures in one request, at most."
)
@click.option(
    "--engine",
    default="local",
    show_default=True,
    type=click.Choice(["local", "ray"]),
    help="Score in this process, or on a Ray cluster.",
)
@click.option("--address", help="Ray cluster, such as auto or ray://head:10001; by default one on this machine.")
@click.option("--only-pictures", is_flag=True, help="Leave out files that are no pictures; the summary counts them.")
@click.option(
    "--archive-encoding", help="Encoding of names in an archive that are not marked as UTF-8, such as cp949 or cp932."
)
@click.option("--excel", is_flag=True, help="Write a CSV for Excel: as UTF-8 with a mark, and without formulas.")
@click.option("--path-column", help="Column of a table with the paths.")
@click.option("--truth-column", help="Column of a table with the true labels.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@client_options
def score(
    *,
    source: str,
    model: str,
    out: str,
    version: int | None,
    label: str | None,
    top: int,
    ordered: bool,
    overwrite: bool,
    retry_failed: bool,
    changed_only: bool,
    max_failures: str | None,
    patience: float,
    concurrency: int,
    per_request: int,
    engine: str,
    address: str | None,
    only_pictures: bool,
    archive_encoding: str | None,
    excel: bool,
    path_column: str | None,
    truth_column: str | None,
    as_json: bool,
    url: str,
    api_key: str | None,
    timeout: float,
) -> None:
    """Score every picture of SOURCE into a file: exactly one row each, failures included.

    SOURCE is a folder, a glob in quotes, a .txt of paths, a .csv or .parquet with a path column, a .zip or .tar, or an
    address such as s3://bucket/prefix. A run that is killed loses nothing: the same command continues it.

    Exit 0: every picture has a label. 1: some failed, or the run stopped before its end. 2: it could not begin.
    """
    options = PredictOptions(model, top, version, label)
    reading = SourceOptions(Columns(path_column, truth_column), only_pictures, archive_encoding)
    job = Job(source, out, options, reading, ordered, overwrite, retry_failed, changed_only, excel)
    limit = failure_limit(max_failures)
    with Client(url, api_key=api_key, timeout=timeout) as client:
        served = served_model(client, options)
        plan = Plan(options, version_of(served, options), per_request, concurrency, patience, limit, served.labels)
        config = WorkerConfig(os.getcwd(), source, reading, url, api_key, timeout, plan)
        run = partial(run_on_ray, address, config) if engine == "ray" else None
        summary = run_job(job, plan, client, Console(stderr=True, highlight=False), run)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        show_summary(summary, Console(highlight=False))
    sys.exit(1 if summary.failed else 0)


def served_model(client: Client, options: PredictOptions) -> Model:
    """Look the model up. Raises an error with exit status 2 where service or model is missing."""
    try:
        return client.model(options.model)
    except SightlineError as exc:
        raise as_usage_error(exc) from exc


def version_of(served: Model, options: PredictOptions) -> int | None:
    """The version that will answer; None where it is unknown."""
    return options.version if options.version is not None else served.version


def run_job(job: Job, plan: Plan, client: Client, console: Console, run: Engine | None = None) -> Summary:
    """Score the inputs without a row and write the file. Raises what `Scorer.run` raises, UsageError, OutputFailed.

    run: the engine that scores them; None for this process.
    """
    started = time.monotonic()
    check_output(job.output, excel=job.excel)
    source = open_source(job.source, replace(job.reading, is_result=_is_result(job.output)))
    with closing(source), opened_journal(job, source, plan.labels) as (journal, notes):
        before = journal.done()
        if journal.done() < journal.total():
            with reporting(console, journal.total()) as report:
                try:
                    if run is None:
                        Scorer(source, journal, client, plan, report=report).run()
                    else:
                        run(journal, report)
                except (SightlineError, KeyboardInterrupt):
                    _show_reasons(journal, console)
                    raise
        answered = journal.done() - before
        if answered or journal.meta("written") != job.written or not os.path.exists(job.output):
            write_rows(job.output, journal.rows(job.options.model, ordered=job.ordered), excel=job.excel)
            journal.note("written", job.written)
        return _summary(job, journal, notes, answered, time.monotonic() - started)


@contextmanager
def opened_journal(job: Job, source: Source, labels: Sequence[str] = ()) -> Iterator[tuple[Journal, list[str]]]:
    """Open the journal of a job, new or as it was left, with its inputs listed. Yields it and notes for the summary."""
    path = journal_path(job.output)
    if job.overwrite and not _is_resumable_overwrite(job, path):
        remove_journal(job.output)
    if os.path.exists(job.output) and not os.path.exists(path) and not job.overwrite:
        raise UsageError(
            f"{job.output} exists already.", hint="Name another file with --out, or begin again with --overwrite."
        )
    journal = Journal(path)
    try:
        notes = list(_prepared(job, source, journal, labels))
        yield journal, notes
    finally:
        is_empty = journal.meta("listed") is None
        journal.close()
        if is_empty:
            remove_journal(job.output)


def _is_resumable_overwrite(job: Job, path: str) -> bool:
    """Tell whether this command, --overwrite included, was killed before it wrote its file: then it continues."""
    if not os.path.exists(path):
        return False
    try:
        journal = Journal(path)
    except NotAJournal:
        return False
    try:
        mode, listed, written = (journal.meta(key) for key in ("mode", "listed", "written"))
        return (mode, listed, written) == ("overwrite", job.identity(), None)
    finally:
        journal.close()


def _prepared(job: Job, source: Source, journal: Journal, labels: Sequence[str]) -> Iterator[str]:
    """List the inputs of a new run, make pending what is to be done again. Yields notes for the summary."""
    identity, mode = journal.meta("listed"), journal.meta("mode")
    if identity is None:
        mode = "overwrite" if job.overwrite else "first"
        names = OddNames()
        journal.list_inputs(names.watched(_some(job, source)), {"listed": job.identity(), "mode": mode}, labels)
        yield from _noted(source, journal, names)
        return
    if identity != job.identity():
        raise UsageError(
            f"{journal.path} is the journal of another run: {identity}",
            hint="Give the same source and model, name another file with --out, or begin again with --overwrite.",
        )
    finished = journal.done() == journal.total()
    if job.changed_only and (finished or mode != "changed"):
        names = OddNames()
        journal.list_again(names.watched(_some(job, source)), {"mode": "changed"}, labels)
        yield "listed anew: unchanged pictures keep their rows"
        yield from _noted(source, journal, names)
        return
    yield from json.loads(journal.meta("listing") or "[]")
    if job.retry_failed and (failed := journal.forget_failures()):
        yield f"{failed} failed pictures are tried again"
    if finished and not job.retry_failed:
        yield "every input has its row already: nothing to do (--retry-failed, --changed-only, --overwrite)"
    elif journal.done():
        yield f"resumed: {journal.done()} of {journal.total()} were done"


class OddNames:
    """Watches a listing for paths that are not UTF-8."""

    def __init__(self) -> None:
        self._count = 0
        self._first = ""

    def watched(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Yield all inputs."""
        for one in inputs:
            if not is_utf8(one.path):
                self._count += 1
                self._first = self._first or next(part for part in one.path.split("/") if not is_utf8(part))
            yield one

    def lines(self) -> list[str]:
        """Say how many there are, how they are written, and what the first may mean."""
        if not self._count:
            return []
        meant = readings_text(self._first)
        return [
            f"{self._count:,} paths are not UTF-8; such bytes are written \\xNN. {shown_path(self._first)!r} may be "
            f"{meant or 'damaged'} (of an archive: --archive-encoding)"
        ]


def _noted(source: Source, journal: Journal, names: OddNames) -> list[str]:
    """Note what the listing left out. Returns the lines of it."""
    lines = [*source.left_out.lines(), *names.lines()]
    journal.note("listing", json.dumps(lines))
    journal.note("left_out", json.dumps(list(source.left_out.counts.items())))
    return lines


def _some(job: Job, source: Source) -> Iterator[Input]:
    """Yield the inputs. Raises UsageError where there is none."""
    inputs = source.inputs()
    first = next(inputs, None)
    if first is None:
        left_out = "; ".join(source.left_out.lines())
        raise UsageError(f"There is no picture in {job.source!r}.", hint=left_out or "The source is empty.")
    yield first
    yield from inputs


def _is_result(output: str) -> Callable[[str], bool]:
    """Tell results that `sightline score` wrote, those of this run first of all."""
    journal = os.path.realpath(journal_path(output))
    own = {os.path.realpath(output), journal, f"{journal}-wal", f"{journal}-shm"}
    names = {os.path.basename(path) for path in own}  # resolving every path would take longer than listing
    return lambda path: (os.path.basename(path) in names and os.path.realpath(path) in own) or is_results(path)


def _accuracy(journal: Journal) -> tuple[int, float | None]:
    """(rows with a label and a truth, the share of them whose label it is)."""
    confusion = journal.confusion()
    spelling = Spelling.of_labels(json.loads(journal.meta("labels") or "[]") or [label for _, label, _ in confusion])
    total = sum(count for _, _, count in confusion)
    right = sum(count for truth, label, count in confusion if (spelling.of(truth) or truth) == label)
    return total, right / total if total else None


def _summary(job: Job, journal: Journal, notes: list[str], answered: int, seconds: float) -> Summary:
    versions = journal.tally("version", OK)
    if len(versions) > 1:
        listed = ", ".join(f"{count} by version {version}" for version, count in versions)
        notes = [*notes, f"more than one version answered: {listed}; --changed-only brings all to the newest"]
    with_truth, accuracy = _accuracy(journal)
    return Summary(
        shown_path(job.output),
        journal.done(),
        journal.failures(),
        answered,
        round(seconds, 3),
        journal.tally("label", OK),
        journal.tally("error_code", FAILED),
        versions,
        journal.flips(),
        with_truth,
        accuracy,
        [(reason, count) for reason, count in json.loads(journal.meta("left_out") or "[]")],
        notes,
    )


@contextmanager
def reporting(console: Console, total: int) -> Iterator[Callable[[Progress], None]]:
    """Report progress: by a bar on a terminal, elsewhere by a line every ten seconds."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TextColumn("{task.fields[failures]} failed"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("scoring", total=total, rate=0.0, failures=0)
        yield _bar_report(bar, task)


def _bar_report(bar: Bar, task: TaskID) -> Callable[[Progress], None]:
    started = time.monotonic()

    def report(now: Progress) -> None:
        rate = now.answered / max(1e-9, time.monotonic() - started)
        bar.update(task, completed=now.rows, rate=rate, failures=now.failures)
        bar.refresh()

    return report


def _lines(console: Console) -> Callable[[Progress], None]:
    started = printed = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal printed
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            rate = now.answered / (printed - started)
            console.print(f"{now.rows} of {now.total}, {rate:.0f}/s, {now.failures} failed")

    return report


def _show_reasons(journal: Journal, console: Console) -> None:
    for code, count in journal.tally("error_code", FAILED)[:SHOWN_LABELS]:
        console.print(f"  {count} failed: {code}")
    console.print(f"{journal.done()} of {journal.total()} are recorded in {escape(journal.path)}")


def show_summary(summary: Summary, console: Console) -> None:
    """Print notes, the counts by label, the failures by reason, the labels that flipped, accuracy and rate."""
    for note in summary.notes:
        console.print(escape(note))
    table = Table("label", "pictures", box=None, pad_edge=False)
    for label, count in summary.labels[:SHOWN_LABELS]:
        table.add_row(escape(label), str(count))
    if len(summary.labels) > SHOWN_LABELS:
        table.add_row(f"{len(summary.labels) - SHOWN_LABELS} more labels", "")
    if summary.labels:
        console.print(table)
    for code, count in summary.reasons:
        console.print(f"failed: {count} {code}", style="red")
    for before, now, count in summary.flips[:SHOWN_LABELS]:
        console.print(f"flipped: {count} from {escape(before)} to {escape(now)}")
    if summary.accuracy is not None:
        console.print(f"accuracy: {summary.accuracy:.2%} of the {summary.with_truth} with a truth")
    console.print(
        f"{summary.rows} rows in {escape(summary.output)}, {summary.failed} failed; "
        f"{summary.answered} in {summary.seconds:.1f} s, {summary.per_second:.0f} a second"
    )
