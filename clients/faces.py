"""`sightline faces`: a known set at the terminal.

It works on the galleries themselves, and a running service sees every change at its next request; or, given --url, it
asks a running service.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from sightline.calls import ready
from sightline.client import Client

from clients.commands import as_operator_error, console
from clients.face_answers import Answers, AnswersHere, AnswersServed, Enrolling, Identifying, Row
from serving.contract.errors import BadRequest, NotFound, Unavailable, UsageError
from serving.faces.enrolment import named_files
from serving.faces.face import DetectorModel
from serving.faces.galleries.export_file import export_gallery, import_gallery
from serving.faces.galleries.gallery import DEFAULT_GALLERY, Archive, check_gallery
from serving.faces.galleries.stores import missing_file, open_for_reading, open_store
from serving.faces.galleries.tolerance_advice import Advice, advise, histogram
from serving.faces.recognition import CANDIDATES
from serving.faces.settings import FaceSettings, read_face_settings

ENROLLED = ("enrolled", "already")
RETRIES = 8  # of one request to a service: a queue that is full empties at some photos a second

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
gallery_option = click.option("--gallery", default=DEFAULT_GALLERY, show_default=True, help="Which gallery.")
model_option = click.option(
    "--model", type=click.Choice(["hog", "cnn"]), default="hog", show_default=True, help="Detector; cnn wants a GPU."
)
tolerance_option = click.option("--tolerance", type=float, help="Distance up to which two faces are one person.")
file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Where:
    """The galleries. named: on the command line, so that SIGHTLINE_URL does not count."""

    settings: FaceSettings
    named: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. url: None where none is to be asked."""

    url: str | None
    api_key: str | None
    timeout: float


def service_options(command: Any) -> Any:
    """Give a command --url, --api-key and --timeout, as one argument `service`."""

    @click.option("--url", envvar="SIGHTLINE_URL", help="Ask this running service.  [default: SIGHTLINE_URL, or none]")
    @click.option("--api-key", envvar="SIGHTLINE_API_KEY", help="Sent to it as a bearer token.")
    @click.option(
        "--timeout", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds."
    )
    @functools.wraps(command)
    def with_service(*args: Any, url: str | None, api_key: str | None, timeout: float, **kwargs: Any) -> Any:
        return command(*args, service=Service(url, api_key, timeout), **kwargs)

    return with_service


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", help="Where the galleries are.  [default: SIGHTLINE_FACES_URL, else sqlite:///faces.db]")
@click.pass_context
def faces(ctx: click.Context, store: str | None) -> None:
    """Know people by their photos.

    \b
    sightline faces enrol people/
    sightline faces identify party.jpg
    sightline faces compare one.jpg other.jpg
    sightline faces identify party.jpg --url http://gpu-7:8000
    """
    settings = read_face_settings(os.environ)
    ctx.obj = Where(settings.model_copy(update={"url": store}) if store else settings, store is not None)


@faces.command(epilog="Example: sightline faces enrol people/ --gallery staff --expires 2027-12-31")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@gallery_option
@click.option("--replace", "anew", is_flag=True, help="Forget first what is known of each person.")
@click.option("--expires", help="Forget them on this day (2027-12-31).")
@click.option("--allow", multiple=True, metavar="REASON", help="Waive a reason, such as looks_like_someone_else.")
@click.option("--keep-photos", is_flag=True, help="Store the photos too, not only what is measured of them.")
@model_option
@json_option
@service_options
@click.pass_obj
def enrol(
    where: Where,
    *,
    folder: Path,
    gallery: str,
    anew: bool,
    expires: str | None,
    allow: Sequence[str],
    keep_photos: bool,
    model: DetectorModel,
    as_json: bool,
    service: Service,
) -> None:
    """Enrol a folder: a file's name is the person's, or a folder for each person with several photos.

    Every photo is judged; what is refused is told with its reason. Run it again after an interruption: it goes on.
    Exit 1 when a photo was refused.
    """
    files = named_files(folder)
    with answering(where, service, to_enrol=True) as answers:
        how = Enrolling(check_gallery(gallery), anew, expires, allow, keep_photos, model)
        rows = answers.enrol(files, how)
        done = list(track(rows, "Enrolling", len(files), console=Console(stderr=True), transient=True))
    if as_json:
        click.echo(json.dumps({"gallery": gallery, "photos": done}, indent=2))
    else:
        console().print(_enrolled_table(done))
    sys.exit(0 if all(row["status"] in ENROLLED for row in done) else 1)


@faces.command("identify", epilog="Example: sightline faces identify party.jpg --annotate framed/")
@click.argument("files", nargs=-1, required=True, type=file_argument)
@gallery_option
@tolerance_option
@click.option("--top", default=CANDIDATES, show_default=True, type=click.IntRange(1), help="How many candidates.")
@click.option("--annotate", "framed", type=click.Path(file_okay=False, path_type=Path), help="Folder for framed PNGs.")
@model_option
@json_option
@service_options
@click.pass_obj
def identify_command(
    where: Where,
    *,
    files: Sequence[Path],
    gallery: str,
    tolerance: float | None,
    top: int,
    framed: Path | None,
    model: DetectorModel,
    as_json: bool,
    service: Service,
) -> None:
    """Name every face of photos, the largest first. Exit 1 when a photo could not be used."""
    rows: list[Row] = []
    with answering(where, service) as answers:
        how = Identifying(check_gallery(gallery), tolerance, top, model)
        for file in files:
            row, picture = answers.identify(file, how, framed=framed is not None)
            rows.append(row)
            if framed is not None and picture is not None:
                framed.mkdir(parents=True, exist_ok=True)
                (framed / f"{file.stem}.png").write_bytes(picture)
    if as_json:
        click.echo(json.dumps({"photos": rows}, indent=2))
    else:
        console().print(_identified_table(rows))
    sys.exit(1 if any("error" in row for row in rows) else 0)


@faces.command("compare", epilog="Example: sightline faces compare passport.jpg selfie.jpg")
@click.argument("one", type=file_argument)
@click.argument("other", type=file_argument)
@tolerance_option
@model_option
@json_option
@service_options
@click.pass_obj
def compare_command(
    where: Where,
    *,
    one: Path,
    other: Path,
    tolerance: float | None,
    model: DetectorModel,
    as_json: bool,
    service: Service,
) -> None:
    """Tell whether two photos show one person, by the largest face of each."""
    with answering(where, service) as answers:
        answer = answers.compare(one, other, tolerance, model)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        verdict = "the same person" if answer["same"] else "different persons"
        click.echo(f"{verdict}: distance {answer['distance']:.3f}, tolerance {answer['tolerance']:g}")


@faces.command("list")
@gallery_option
@json_option
@service_options
@click.pass_obj
def list_command(where: Where, *, gallery: str, as_json: bool, service: Service) -> None:
    """List who is in a gallery."""
    with answering(where, service) as answers:
        people = answers.people(gallery)
    if as_json:
        click.echo(json.dumps({"gallery": gallery, "people": people}, indent=2))
        return
    table = Table("person", "encodings", "expires", box=None, pad_edge=False)
    for person in people:
        table.add_row(escape(person["name"]), str(person["encodings"]), person["expires"])
    console().print(table)


@faces.command("galleries")
@json_option
@service_options
@click.pass_obj
def galleries_command(where: Where, *, as_json: bool, service: Service) -> None:
    """List the galleries."""
    with answering(where, service) as answers:
        rows = answers.galleries()
    if as_json:
        click.echo(json.dumps({"galleries": rows}, indent=2))
        return
    table = Table("gallery", "people", "encodings", "encoder", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], str(row["people"]), str(row["encodings"]), row["encoder"])
    console().print(table)


@faces.command("forget", epilog="Example: sightline faces forget 'Ada Lovelace'")
@click.argument("name")
@gallery_option
@service_options
@click.pass_obj
def forget_command(where: Where, *, name: str, gallery: str, service: Service) -> None:
    """Forget a person: encodings and kept photos are purged from the file."""
    with answering(where, service) as answers:
        count = answers.forget(gallery, name)
    click.echo(f"Forgot {name}: {count} encodings.")


@faces.command("drop", epilog="Example: sightline faces drop visitors-2026")
@click.argument("gallery")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop_command(where: Where, *, gallery: str, yes: bool) -> None:
    """Delete a whole gallery."""
    if not yes:
        click.confirm(f"Forget everybody in {gallery}?", abort=True)
    with at_hand(where.settings) as store:
        count = store.drop(gallery)
    click.echo(f"Dropped {gallery}: {count} encodings.")


@faces.command("advise", epilog="Example: sightline faces advise --rate 0.001 --histogram distances.png")
@gallery_option
@click.option(
    "--rate",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of strangers who may be taken for somebody.",
)
@click.option("--histogram", "picture", type=click.Path(dir_okay=False, path_type=Path), help="PNG file to write.")
@json_option
@click.pass_obj
def advise_command(where: Where, *, gallery: str, rate: float, picture: Path | None, as_json: bool) -> None:
    """Find the tolerance that suits a gallery, from its own photos."""
    with at_hand(where.settings) as store:
        advice = advise(store.entries(gallery), rate)
    if picture is not None:
        picture.write_bytes(histogram(advice))
    if as_json:
        click.echo(json.dumps(_advice_json(advice), indent=2))
    else:
        _print_advice(advice)


@faces.command("export", epilog="Example: sightline faces export staff.jsonl --gallery staff")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@gallery_option
@click.pass_obj
def export_command(where: Where, *, file: Path, gallery: str) -> None:
    """Write a gallery to a file, to move it. The file is not encrypted."""
    with at_hand(where.settings) as store:
        count = export_gallery(store, gallery, file)
    click.echo(f"Wrote {count} encodings of {gallery} to {file}.")


@faces.command("import", epilog="Example: sightline faces --store postgresql://db/faces import staff.jsonl")
@click.argument("file", type=file_argument)
@click.option("--gallery", help="Into which gallery; by default the one it was.")
@click.pass_obj
def import_command(where: Where, *, file: Path, gallery: str | None) -> None:
    """Add an exported gallery to a store."""
    with at_hand(where.settings, to_enrol=True) as store:
        name, added = import_gallery(store, file, gallery)
    click.echo(f"Added {added} encodings to {name}.")


@faces.command("audit")
@json_option
@click.pass_obj
def audit_command(where: Where, *, as_json: bool) -> None:
    """Show what was enrolled, forgotten, expired and dropped; names only as digests."""
    with at_hand(where.settings) as store:
        records = store.audit()
    if as_json:
        click.echo(json.dumps({"records": [asdict(record) for record in records]}, indent=2))
        return
    table = Table("at", "action", "gallery", "person", "encodings", box=None, pad_edge=False)
    for record in records:
        table.add_row(record.at, record.action, record.gallery, record.person, str(record.count))
    console().print(table)


@contextlib.contextmanager
def at_hand(settings: FaceSettings, *, to_enrol: bool = False) -> Iterator[Archive]:
    """Open the store for the time of a command."""
    with contextlib.closing(_opened(settings, to_enrol=to_enrol)) as store, _mistakes():
        yield store


def _opened(settings: FaceSettings, *, to_enrol: bool) -> Archive:
    """Open the store. A command that does not enrol makes no file: it says on stderr that nobody is known there."""
    if to_enrol:
        return open_store(settings.url, settings.key)
    missing = missing_file(settings.url)
    if missing is not None:
        click.echo(f"There is no gallery at {missing}: nobody is known there.", err=True)
        click.echo("  Enrol somebody, or name another store with --store or SIGHTLINE_FACES_URL.", err=True)
    return open_for_reading(settings.url, settings.key)


@contextlib.contextmanager
def answering(where: Where, service: Service, *, to_enrol: bool = False) -> Iterator[Answers]:
    """The service that is named, else the galleries themselves."""
    is_named = click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE
    if where.named and is_named:
        raise UsageError("--store and --url are both given", hint="A service has its own galleries: leave one out.")
    answers: Answers
    if service.url and not where.named:
        client = Client(service.url, api_key=service.api_key, timeout=service.timeout, max_retries=RETRIES)
        with contextlib.suppress(Unavailable):  # one that is busy is waited for; one that is not there is not
            client.with_options(max_retries=0).ask(ready())
        answers = AnswersServed(client)
    else:
        answers = AnswersHere(where.settings, _opened(where.settings, to_enrol=to_enrol))
    with contextlib.closing(answers), _mistakes():
        yield answers


@contextlib.contextmanager
def _mistakes() -> Iterator[None]:
    """Somebody who is not there, a name or a number that is none: the caller's mistake, exit 2."""
    try:
        yield
    except (NotFound, BadRequest) as exc:
        raise as_operator_error(exc) from exc


def _enrolled_table(rows: Sequence[Row]) -> Table:
    table = Table("file", "person", "status", "why", box=None, pad_edge=False)
    for row in rows:
        color = "green" if row["status"] in ENROLLED else "red"
        table.add_row(escape(row["file"]), escape(row["person"]), f"[{color}]{row['status']}[/]", escape(row["why"]))
    return table


def _identified_table(rows: Sequence[Row]) -> Table:
    table = Table("file", "name", "distance", "then", box=None, pad_edge=False)
    for row in rows:
        shown = escape(row["file"])
        if "error" in row:
            table.add_row(shown, f"[red]{row['code']}[/]", "", escape(f"{row['error']}. {row['hint']}".rstrip()))
        elif not row["faces"]:
            table.add_row(shown, "no face", "", f"tried: {', '.join(row['tried'])}")
        for face in row.get("faces", ()):
            name = f"[bold]{escape(face['name'])}[/]" if face["name"] else "unknown"
            others = face["candidates"][1:] if face["name"] else face["candidates"]
            then = ", ".join(f"{other['name']} {other['distance']:.3f}" for other in others)
            table.add_row(shown, name, f"{face['distance']:.3f}" if face["name"] else "", escape(then))
    return table


def _advice_json(advice: Advice) -> dict[str, Any]:
    plain = replace(advice, same=advice.same.round(4).tolist(), other=advice.other.round(4).tolist())
    return asdict(plain)


def _print_advice(advice: Advice) -> None:
    click.echo(f"{advice.people} people, {advice.photos} photos")
    if len(advice.same):
        click.echo(f"same person, nearest photo: median {_median(advice.same):.3f}, farthest {advice.same[-1]:.3f}")
    click.echo(f"anybody else, nearest photo: median {_median(advice.other):.3f}, nearest {advice.other[0]:.3f}")
    click.echo(
        f"tolerance {advice.tolerance:.3f}: at most {advice.rate:.2%} of strangers are taken for somebody", nl=False
    )
    click.echo("" if advice.missed is None else f", {advice.missed:.2%} of photos of the known are not recognised")
    if advice.rate < advice.finest_rate:
        click.echo(f"So few photos cannot show a rate below {advice.finest_rate:.2%}: enrol more to be surer.")
    click.echo("Most easily confused:")
    for pair in advice.confusable:
        click.echo(f"  {pair.distance:.3f}  {pair.one} - {pair.other}")


def _median(values: Any) -> float:
    return float(values[len(values) // 2])


if __name__ == "__main__":
    from sightline.cli import run

    run(faces, "python -m clients.faces")
