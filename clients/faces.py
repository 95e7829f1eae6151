"""`sightline faces`: people and their photos at the terminal.

It works on the galleries themselves, and a running service sees every change at its next request; or, with --url, it
asks a running service, and the machine needs none of the packages of faces.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from sightline.calls import ready
from sightline.cli import missing
from sightline.client import Client
from sightline.errors import BadRequest, NotFound, Unavailable, UsageError, sentences
from sightline.faces import Detector, EnrolArguments, IdentifyArguments

from clients.commands import as_usage_error, console
from clients.face_answers import FaceAnswers, Row, named_files
from clients.remote_faces import RemoteFaces
from serving.contract import errors as contract
from serving.faces.galleries.export_file import export_gallery, import_gallery
from serving.faces.galleries.gallery import DEFAULT_GALLERY, Archive, check_gallery

if TYPE_CHECKING:
    from serving.faces.galleries.tolerance_advice import Advice

ENROLLED = ("enrolled", "already")
RETRIES = 8  # of one request to a service: a queue that is full empties at some photos a second
CANDIDATES = 5

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
gallery_option = click.option("--gallery", default=DEFAULT_GALLERY, show_default=True, help="Name of the gallery.")
model_option = click.option(
    "--model",
    type=click.Choice(["hog", "cnn"]),
    default="hog",
    show_default=True,
    help="Detector of faces; cnn needs a GPU.",
)
tolerance_option = click.option("--tolerance", type=float, help="Distance up to which two faces are one person.")
file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. url: None for the galleries themselves."""

    url: str | None
    api_key: str | None
    timeout: float


def service_options(command: Any) -> Any:
    """Give a command --url, --api-key and --timeout, as one argument `service`."""

    @click.option("--url", envvar="SIGHTLINE_URL", help="Ask this running service.  [default: SIGHTLINE_URL, or none]")
    @click.option("--api-key", envvar="SIGHTLINE_API_KEY", help="API key of the service.")
    @click.option(
        "--timeout",
        default=60.0,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        help="Seconds to wait for an answer.",
    )
    @functools.wraps(command)
    def with_service(*args: Any, url: str | None, api_key: str | None, timeout: float, **kwargs: Any) -> Any:
        return command(*args, service=Service(url, api_key, timeout), **kwargs)

    return with_service


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", help="Address of the galleries.  [default: SIGHTLINE_FACES_URL, else sqlite:///faces.db]")
@click.pass_context
def faces(ctx: click.Context, store: str | None) -> None:
    """Know people by their photos.

    \b
    sightline faces enrol people/
    sightline faces identify party.jpg
    sightline faces compare one.jpg other.jpg
    sightline faces identify party.jpg --url http://gpu-7:8000
    """
    ctx.obj = store


@faces.command(epilog="Example: sightline faces enrol people/ --gallery staff --expires 2027-12-31")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@gallery_option
@click.option("--replace", "replace_known", is_flag=True, help="Replace what is known of each person.")
@click.option("--expires", help="Day on which they are forgotten, such as 2027-12-31.")
@click.option("--allow", multiple=True, metavar="REASON", help="Waive a reason, such as looks_like_someone_else.")
@click.option("--keep-photos", is_flag=True, help="Store the photos, too.")
@model_option
@json_option
@service_options
@click.pass_obj
def enrol(
    store: str | None,
    *,
    folder: Path,
    gallery: str,
    replace_known: bool,
    expires: str | None,
    allow: Sequence[str],
    keep_photos: bool,
    model: Detector,
    as_json: bool,
    service: Service,
) -> None:
    """Enrol a folder of photos, named after the people, or with a folder for each person.

    Every photo is judged, and refused with a reason where it is not good enough. After an interruption the same command
    continues. Exit 1 when a photo was refused or failed.
    """
    files = named_files(folder)
    with answering(store, service, to_enrol=True) as answers:
        arguments: EnrolArguments = {
            "gallery": check_gallery(gallery),
            "replace": replace_known,
            "expires": expires,
            "allow": allow,
            "keep_photos": keep_photos,
            "model": model,
        }
        rows = answers.enrol(files, arguments)
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
    store: str | None,
    *,
    files: Sequence[Path],
    gallery: str,
    tolerance: float | None,
    top: int,
    framed: Path | None,
    model: Detector,
    as_json: bool,
    service: Service,
) -> None:
    """Name every face of photos, the largest first. Exit 1 when a photo could not be used."""
    rows: list[Row] = []
    with answering(store, service) as answers:
        arguments: IdentifyArguments = {
            "gallery": check_gallery(gallery),
            "tolerance": tolerance,
            "top": top,
            "model": model,
        }
        for file in files:
            row, picture = answers.identify(file, arguments, framed=framed is not None)
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
    store: str | None,
    *,
    one: Path,
    other: Path,
    tolerance: float | None,
    model: Detector,
    as_json: bool,
    service: Service,
) -> None:
    """Tell whether two photos show one person, by the largest face of each."""
    with answering(store, service) as answers:
        answer = answers.compare(one, other, {"tolerance": tolerance, "model": model})
    if as_json:
        fields = {"same": answer.same, "distance": answer.distance, "tolerance": answer.tolerance}
        click.echo(json.dumps(fields, indent=2))
    else:
        verdict = "the same person" if answer.same else "different persons"
        click.echo(f"{verdict}: distance {answer.distance:.3f}, tolerance {answer.tolerance:g}")


@faces.command("list")
@gallery_option
@json_option
@service_options
@click.pass_obj
def list_command(store: str | None, *, gallery: str, as_json: bool, service: Service) -> None:
    """List the people of a gallery."""
    with answering(store, service) as answers:
        people = answers.people(gallery)
    if as_json:
        entries = [{**asdict(person), "expires": person.expires or ""} for person in people]
        click.echo(json.dumps({"gallery": gallery, "people": entries}, indent=2))
        return
    table = Table("person", "encodings", "expires", box=None, pad_edge=False)
    for person in people:
        table.add_row(escape(person.name), str(person.encodings), person.expires or "")
    console().print(table)


@faces.command("galleries")
@json_option
@service_options
@click.pass_obj
def galleries_command(store: str | None, *, as_json: bool, service: Service) -> None:
    """List the galleries."""
    with answering(store, service) as answers:
        rows = answers.galleries()
    if as_json:
        click.echo(json.dumps({"galleries": [asdict(row) for row in rows]}, indent=2))
        return
    table = Table("gallery", "people", "encodings", "encoder", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, str(row.people), str(row.encodings), row.encoder)
    console().print(table)


@faces.command("forget", epilog="Example: sightline faces forget 'Ada Lovelace'")
@click.argument("name")
@gallery_option
@service_options
@click.pass_obj
def forget_command(store: str | None, *, name: str, gallery: str, service: Service) -> None:
    """Forget a person: their encodings and kept photos are purged."""
    with answering(store, service) as answers:
        count = answers.forget(gallery, name)
    click.echo(f"Forgot {name}: {count} encodings.")


@faces.command("drop", epilog="Example: sightline faces drop visitors-2026")
@click.argument("gallery")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def drop_command(store: str | None, *, gallery: str, yes: bool) -> None:
    """Delete a whole gallery."""
    if not yes:
        click.confirm(f"Forget everybody in {gallery}?", abort=True)
    with opened_archive(store) as archive:
        count = archive.drop(gallery)
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
@click.option(
    "--histogram",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PNG file for the histogram of distances.",
)
@json_option
@click.pass_obj
def advise_command(store: str | None, *, gallery: str, rate: float, picture: Path | None, as_json: bool) -> None:
    """Find the tolerance that suits a gallery by its own photos."""
    with opened_archive(store) as archive:
        from serving.faces.galleries.tolerance_advice import advise, histogram

        advice = advise(archive.entries(gallery), rate)
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
def export_command(store: str | None, *, file: Path, gallery: str) -> None:
    """Write a gallery to a file, to move it to another store. The file is not encrypted."""
    with opened_archive(store) as archive:
        count = export_gallery(archive, gallery, file)
    click.echo(f"Wrote {count} encodings of {gallery} to {file}.")


@faces.command("import", epilog="Example: sightline faces --store postgresql://db/faces import staff.jsonl")
@click.argument("file", type=file_argument)
@click.option("--gallery", help="Name of the new gallery; by default the old one.")
@click.pass_obj
def import_command(store: str | None, *, file: Path, gallery: str | None) -> None:
    """Add an exported gallery to a store."""
    with opened_archive(store, to_enrol=True) as archive:
        name, added = import_gallery(archive, file, gallery)
    click.echo(f"Added {added} encodings to {name}.")


@faces.command("audit")
@json_option
@click.pass_obj
def audit_command(store: str | None, *, as_json: bool) -> None:
    """List what was enrolled, forgotten, expired and dropped, with digests in place of names."""
    with opened_archive(store) as archive:
        records = archive.audit()
    if as_json:
        click.echo(json.dumps({"records": [asdict(record) for record in records]}, indent=2))
        return
    table = Table("at", "action", "gallery", "person", "encodings", box=None, pad_edge=False)
    for record in records:
        table.add_row(record.at, record.action, record.gallery, record.person, str(record.count))
    console().print(table)


@contextlib.contextmanager
def opened_archive(store: str | None, *, to_enrol: bool = False) -> Iterator[Archive]:
    """Open the galleries. store: their address, None for that of the settings."""
    try:
        from clients.local_faces import open_archive
    except ModuleNotFoundError as exc:
        raise missing("This command", exc, "faces") from exc
    with contextlib.closing(open_archive(store, to_enrol=to_enrol)) as archive, caller_errors():
        yield archive


@contextlib.contextmanager
def answering(store: str | None, service: Service, *, to_enrol: bool = False) -> Iterator[FaceAnswers]:
    """Open the service that is named, else the galleries. A store on the command line outweighs SIGHTLINE_URL."""
    is_named = click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE
    if store and is_named:
        raise UsageError("--store and --url are both given.", hint="A service has its own galleries: leave one out.")
    answers = _remote(service.url, service) if service.url and not store else _local(store, to_enrol=to_enrol)
    with contextlib.closing(answers), caller_errors():
        yield answers


def _remote(url: str, service: Service) -> FaceAnswers:
    client = Client(url, api_key=service.api_key, timeout=service.timeout, max_retries=RETRIES)
    with contextlib.suppress(Unavailable):  # a busy service is worth retries; one that is not there is not
        client.with_options(max_retries=0).ask(ready())
    return RemoteFaces(client)


def _local(store: str | None, *, to_enrol: bool) -> FaceAnswers:
    try:
        from clients.local_faces import open_local
    except ModuleNotFoundError as exc:
        raise missing("`sightline faces` without --url", exc, "faces") from exc
    return open_local(store, to_enrol=to_enrol)


@contextlib.contextmanager
def caller_errors() -> Iterator[None]:
    """Give the caller's mistakes, such as an unknown person or a wrong number, the exit status 2."""
    try:
        yield
    except (NotFound, BadRequest, contract.NotFound, contract.BadRequest) as exc:
        raise as_usage_error(exc) from exc


def _enrolled_table(rows: Sequence[Row]) -> Table:
    table = Table("file", "person", "status", "why", box=None, pad_edge=False)
    for row in rows:
        color = "green" if row["status"] in ENROLLED else "red"
        table.add_row(escape(row["file"]), escape(row["person"]), f"[{color}]{row['status']}[/]", escape(row["why"]))
    return table


def _identified_table(rows: Sequence[Row]) -> Table:
    table = Table("file", "name", "distance", "runners-up", box=None, pad_edge=False)
    for row in rows:
        shown = escape(row["file"])
        if "error" in row:
            table.add_row(shown, f"[red]{row['code']}[/]", "", escape(sentences(row["error"], row["hint"])))
        elif not row["faces"]:
            table.add_row(shown, "no face", "", f"tried: {', '.join(row['tried'])}")
        for face in row.get("faces", ()):
            name = f"[bold]{escape(face['name'])}[/]" if face["name"] else "unknown"
            others = face["candidates"][1:] if face["name"] else face["candidates"]
            then = ", ".join(f"{other['name']} {other['distance']:.3f}" for other in others)
            table.add_row(shown, name, f"{face['distance']:.3f}" if face["name"] else "", escape(then))
    return table


def _advice_json(advice: "Advice") -> dict[str, Any]:
    plain = replace(advice, same=advice.same.round(4).tolist(), other=advice.other.round(4).tolist())
    return asdict(plain)


def _print_advice(advice: "Advice") -> None:
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
