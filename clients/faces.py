"""`sightline faces`: a known set at the terminal. It works on the galleries themselves; a running service sees every
change at its next request."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from clients.commands import as_operator_error, console, printable
from serving.contract.errors import BadImage, NotFound, SightlineError
from serving.contract.image import ImageLimits
from serving.faces.adviser import Advice, advise, histogram
from serving.faces.annotation import annotate
from serving.faces.enrolment import FolderRow, Standards, Verdict, enrol_folder, named_files
from serving.faces.face import Model
from serving.faces.gallery import DEFAULT_GALLERY, Archive, check_gallery
from serving.faces.moving import export_gallery, import_gallery
from serving.faces.recognition import CANDIDATES, Faces, Identified, check_tolerance, compare, identify
from serving.faces.settings import FaceSettings
from serving.faces.stores import open_store

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
gallery_option = click.option("--gallery", default=DEFAULT_GALLERY, show_default=True, help="Which gallery.")
model_option = click.option(
    "--model", type=click.Choice(["hog", "cnn"]), default="hog", show_default=True, help="Detector; cnn wants a GPU."
)
tolerance_option = click.option("--tolerance", type=float, help="Distance up to which two faces are one person.")
file_argument = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", help="Where the galleries are.  [default: SIGHTLINE_FACES_URL, else sqlite:///faces.db]")
@click.pass_context
def faces(ctx: click.Context, store: str | None) -> None:
    """Know people by their photos.

    \b
    sightline faces enrol people/
    sightline faces identify party.jpg
    sightline faces compare one.jpg other.jpg
    """
    settings = FaceSettings()
    ctx.obj = settings.model_copy(update={"url": store}) if store else settings


@faces.command(epilog="Example: sightline faces enrol people/ --gallery staff --expires 2027-12-31")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@gallery_option
@click.option("--replace", "anew", is_flag=True, help="Forget first what is known of each person.")
@click.option("--expires", help="Forget them on this day (2027-12-31).")
@click.option("--allow", multiple=True, metavar="REASON", help="Waive a reason, such as looks_like_someone_else.")
@click.option("--keep-photos", is_flag=True, help="Store the photos too, not only what is measured of them.")
@model_option
@json_option
@click.pass_obj
def enrol(
    settings: FaceSettings,
    *,
    folder: Path,
    gallery: str,
    anew: bool,
    expires: str | None,
    allow: Sequence[str],
    keep_photos: bool,
    model: Model,
    as_json: bool,
) -> None:
    """Enrol a folder: a file's name is the person's, or a folder for each person with several photos.

    Every photo is judged; what is refused is told with its reason. Run it again after an interruption: it goes on.
    Exit 1 when a photo was refused.
    """
    files = named_files(folder)
    with at_work(settings) as tools:
        rows = enrol_folder(
            tools,
            files,
            gallery=check_gallery(gallery),
            standards=Standards(allowed=frozenset(allow)),
            expires=expires,
            keep_photos=keep_photos,
            replace=anew,
            model=model,
        )
        done = list(track(rows, "Enrolling", len(files), console=Console(stderr=True), transient=True))
    if as_json:
        click.echo(json.dumps({"gallery": gallery, "photos": [_enrolled_json(row) for row in done]}, indent=2))
    else:
        console().print(_enrolled_table(done))
    sys.exit(1 if any(_is_failure(row) for row in done) else 0)


@faces.command("identify", epilog="Example: sightline faces identify party.jpg --annotate framed/")
@click.argument("files", nargs=-1, required=True, type=file_argument)
@gallery_option
@tolerance_option
@click.option("--top", default=CANDIDATES, show_default=True, type=click.IntRange(1), help="How many candidates.")
@click.option("--annotate", "framed", type=click.Path(file_okay=False, path_type=Path), help="Folder for framed PNGs.")
@model_option
@json_option
@click.pass_obj
def identify_command(
    settings: FaceSettings,
    *,
    files: Sequence[Path],
    gallery: str,
    tolerance: float | None,
    top: int,
    framed: Path | None,
    model: Model,
    as_json: bool,
) -> None:
    """Name every face of photos, the largest first. Exit 1 when a photo could not be used."""
    answers: list[tuple[Path, Identified | BadImage]] = []
    with at_work(settings, tolerance) as tools:
        for file in files:
            photo = file.read_bytes()
            try:
                answer = identify(tools, photo, gallery=gallery, candidates=top, model=model)
            except BadImage as exc:
                answers.append((file, exc))
                continue
            answers.append((file, answer))
            if framed is not None:
                framed.mkdir(parents=True, exist_ok=True)
                (framed / f"{file.stem}.png").write_bytes(annotate(photo, answer, ImageLimits()))
    if as_json:
        click.echo(json.dumps({"photos": [_identified_json(*answer) for answer in answers]}, indent=2))
    else:
        console().print(_identified_table(answers))
    sys.exit(1 if any(isinstance(answer, BadImage) for _, answer in answers) else 0)


@faces.command("compare", epilog="Example: sightline faces compare passport.jpg selfie.jpg")
@click.argument("one", type=file_argument)
@click.argument("other", type=file_argument)
@tolerance_option
@model_option
@json_option
@click.pass_obj
def compare_command(
    settings: FaceSettings, *, one: Path, other: Path, tolerance: float | None, model: Model, as_json: bool
) -> None:
    """Tell whether two photos show one person, by the largest face of each."""
    with at_work(settings, tolerance) as tools:
        answer = compare(tools, one.read_bytes(), other.read_bytes(), model=model)
    if as_json:
        body = {"same": answer.is_same, "distance": answer.distance, "tolerance": answer.tolerance}
        click.echo(json.dumps(body, indent=2))
    else:
        verdict = "the same person" if answer.is_same else "different persons"
        click.echo(f"{verdict}: distance {answer.distance:.3f}, tolerance {answer.tolerance:g}")


@faces.command("list")
@gallery_option
@json_option
@click.pass_obj
def list_command(settings: FaceSettings, *, gallery: str, as_json: bool) -> None:
    """List who is in a gallery."""
    with at_hand(settings) as store:
        people = store.people(gallery)
    if as_json:
        click.echo(json.dumps({"gallery": gallery, "people": [asdict(person) for person in people]}, indent=2))
        return
    table = Table("person", "encodings", "expires", box=None, pad_edge=False)
    for person in people:
        table.add_row(escape(person.name), str(person.encodings), person.expires)
    console().print(table)


@faces.command("galleries")
@json_option
@click.pass_obj
def galleries_command(settings: FaceSettings, *, as_json: bool) -> None:
    """List the galleries."""
    with at_hand(settings) as store:
        rows = store.galleries()
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
@click.pass_obj
def forget_command(settings: FaceSettings, *, name: str, gallery: str) -> None:
    """Forget a person: encodings and kept photos are purged from the file."""
    with at_hand(settings) as store:
        count = store.forget(gallery, name)
    click.echo(f"Forgot {name}: {count} encodings.")


@faces.command("drop", epilog="Example: sightline faces drop visitors-2026")
@click.argument("gallery")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop_command(settings: FaceSettings, *, gallery: str, yes: bool) -> None:
    """Delete a whole gallery."""
    if not yes:
        click.confirm(f"Forget everybody in {gallery}?", abort=True)
    with at_hand(settings) as store:
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
def advise_command(settings: FaceSettings, *, gallery: str, rate: float, picture: Path | None, as_json: bool) -> None:
    """Find the tolerance that suits a gallery, from its own photos."""
    with at_hand(settings) as store:
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
def export_command(settings: FaceSettings, *, file: Path, gallery: str) -> None:
    """Write a gallery to a file, to move it. The file is not encrypted."""
    with at_hand(settings) as store:
        count = export_gallery(store, gallery, file)
    click.echo(f"Wrote {count} encodings of {gallery} to {file}.")


@faces.command("import", epilog="Example: sightline faces --store postgresql://db/faces import staff.jsonl")
@click.argument("file", type=file_argument)
@click.option("--gallery", help="Into which gallery; by default the one it was.")
@click.pass_obj
def import_command(settings: FaceSettings, *, file: Path, gallery: str | None) -> None:
    """Add an exported gallery to a store."""
    with at_hand(settings) as store:
        name, added = import_gallery(store, file, gallery)
    click.echo(f"Added {added} encodings to {name}.")


@faces.command("audit")
@json_option
@click.pass_obj
def audit_command(settings: FaceSettings, *, as_json: bool) -> None:
    """Show what was enrolled, forgotten, expired and dropped; names only as digests."""
    with at_hand(settings) as store:
        records = store.audit()
    if as_json:
        click.echo(json.dumps({"records": [asdict(record) for record in records]}, indent=2))
        return
    table = Table("at", "action", "gallery", "person", "encodings", box=None, pad_edge=False)
    for record in records:
        table.add_row(record.at, record.action, record.gallery, record.person, str(record.count))
    console().print(table)


@contextlib.contextmanager
def at_hand(settings: FaceSettings) -> Iterator[Archive]:
    """The store. Somebody or something that is not there is the caller's mistake: exit 2."""
    store = open_store(settings.url, settings.key)
    try:
        yield store
    except NotFound as exc:
        raise as_operator_error(exc) from exc
    finally:
        store.close()


@contextlib.contextmanager
def at_work(settings: FaceSettings, tolerance: float | None = None) -> Iterator[Faces]:
    """The store, and face processes that encode with dlib: the numbers are those of the service."""
    limit = settings.tolerance if tolerance is None else check_tolerance(tolerance)
    with at_hand(settings) as store, contextlib.closing(settings.pool(ImageLimits())) as pool:
        yield Faces(pool, pool, store, limit)


def _is_failure(row: FolderRow) -> bool:
    return isinstance(row.outcome, SightlineError) or (isinstance(row.outcome, Verdict) and not row.outcome.is_accepted)


def _outcome(row: FolderRow) -> tuple[str, str]:
    """(status, why) of one photo."""
    match row.outcome:
        case None:
            return "already", ""
        case Verdict(reasons=()) as verdict:
            return ("enrolled" if verdict.stored else "already"), ""
        case Verdict() as verdict:
            return "refused", " ".join(
                f"{reason.text}{_numbers(reason.measured, reason.limit)}" for reason in verdict.reasons
            )
        case error:
            return "failed", str(error)


def _numbers(measured: float | None, limit: float | None) -> str:
    return "" if measured is None or limit is None else f" ({measured:.3g}; limit {limit:g})"


def _enrolled_json(row: FolderRow) -> dict[str, Any]:
    status, why = _outcome(row)
    reasons = [asdict(reason) for reason in row.outcome.reasons] if isinstance(row.outcome, Verdict) else []
    code = row.outcome.code if isinstance(row.outcome, SightlineError) else None
    return {
        "file": printable(str(row.path)),
        "person": row.person,
        "status": status,
        "why": why,
        "code": code,
        "reasons": reasons,
    }


def _enrolled_table(rows: Sequence[FolderRow]) -> Table:
    table = Table("file", "person", "status", "why", box=None, pad_edge=False)
    for row in rows:
        status, why = _outcome(row)
        color = "red" if _is_failure(row) else "green"
        table.add_row(escape(printable(str(row.path))), escape(row.person), f"[{color}]{status}[/]", escape(why))
    return table


def _identified_json(file: Path, answer: Identified | BadImage) -> dict[str, Any]:
    if isinstance(answer, BadImage):
        return {"file": printable(str(file)), "error": answer.detail, "code": answer.code}
    matches = [
        {
            "box": asdict(match.face.box),
            "name": match.name,
            "distance": match.distance,
            "candidates": [asdict(candidate) for candidate in match.candidates],
        }
        for match in answer.matches
    ]
    return {
        "file": printable(str(file)),
        "faces": matches,
        "tolerance": answer.tolerance,
        "known": answer.known,
        "tried": answer.found.tried,
    }


def _identified_table(answers: Sequence[tuple[Path, Identified | BadImage]]) -> Table:
    table = Table("file", "name", "distance", "then", box=None, pad_edge=False)
    for file, answer in answers:
        shown = escape(printable(str(file)))
        if isinstance(answer, BadImage):
            table.add_row(shown, f"[red]{answer.code}[/]", "", escape(str(answer)))
        elif not answer.matches:
            table.add_row(shown, "no face", "", f"tried: {', '.join(answer.found.tried)}")
        for match in answer.matches if isinstance(answer, Identified) else ():
            name = f"[bold]{escape(match.name)}[/]" if match.name else "unknown"
            others = match.candidates[1:] if match.name else match.candidates
            then = ", ".join(f"{candidate.name} {candidate.distance:.3f}" for candidate in others)
            distance = f"{match.distance:.3f}" if match.name and match.distance is not None else ""
            table.add_row(shown, name, distance, escape(then))
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
    from sightline import run

    run(faces, "python -m clients.faces")
