"""GET /: the page to try the service, and GET /page/{name}: its style, scripts and sample images."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response, request

from serving.contract.errors import UnknownRoute
from serving.contract.sample_images import SAMPLES
from serving.gateway.http.openapi import Operation, described
from serving.gateway.settings import Settings

PAGE = Path(__file__).parents[1] / "page"
LIMITS, SAMPLE_BUTTONS = "<!--LIMITS-->", "<!--SAMPLES-->"  # marks in index.html
HTML = Operation("service", None, also=("text/html",), scope="open")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
FILE = Operation("service", None, also=tuple(TYPES.values()), scope="open", errors=(UnknownRoute,))
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class File:
    """One file in memory. etag: of its content."""

    content: bytes
    content_type: str
    etag: str


def blueprint(settings: Settings, *, has_faces: bool) -> Blueprint:
    """Make the routes. settings: the limits that the page keeps to. has_faces: there is a face service."""
    routes = Blueprint("page", __name__)
    files = page_files()
    answer = html_page("index.html", {LIMITS: _limits(settings, has_faces), SAMPLE_BUTTONS: _sample_buttons()})

    @routes.get("/")
    @described(HTML)
    def page() -> Response:
        """Show the page to try the service."""
        return answer()

    @routes.get("/page/<name>")
    @described(FILE)
    def file(name: str) -> Response:
        """Return a style, a script or an image of the page."""
        if name not in files:
            raise UnknownRoute(f"The page has no file {name!r}.")
        return _response(files[name])

    return routes


def page_files() -> Mapping[str, File]:
    """Read the files that the page loads, by name."""
    paths = [path for path in (*PAGE.iterdir(), *SAMPLES) if path.suffix in TYPES]
    return {path.name: _file(path.read_bytes(), TYPES[path.suffix]) for path in paths}


def html_page(name: str, marks: Mapping[str, str]) -> Callable[[], Response]:
    """Make a handler for an HTML file of the page. marks: their replacements, which are HTML.

    Behind a proxy with a path the page names it as its base: relative links hold even where the address has no slash at
    its end.
    """
    text = (PAGE / name).read_text("utf-8")
    for mark, replacement in marks.items():
        text = text.replace(mark, replacement)

    def answer() -> Response:
        root = request.script_root
        page = text.replace("<head>", f'<head>\n<base href="{html.escape(root)}/">', 1) if root else text
        response = _response(_file(page.encode(), "text/html"))
        response.headers["Content-Security-Policy"] = POLICY
        return response

    return answer


def _file(content: bytes, mimetype: str) -> File:
    charset = "" if mimetype == "image/jpeg" else "; charset=utf-8"
    return File(content, f"{mimetype}{charset}", sha256(content).hexdigest()[:32])


def _response(file: File) -> Response:
    """Answer with a file, or 304 where the browser has it: it asks each time, so that an update shows at once."""
    response = Response(file.content, content_type=file.content_type, headers={"Cache-Control": "no-cache"})
    response.set_etag(file.etag)
    response.make_conditional(request)
    return response


def _limits(settings: Settings, has_faces: bool) -> str:
    limits = {
        "max-images": settings.max_images,
        "max-request-bytes": settings.max_request_bytes,
        "faces": int(has_faces),
    }
    return " ".join(f'data-{name}="{value}"' for name, value in limits.items())


def _sample_buttons() -> str:
    return "".join(
        f'<button type="button"><img src="page/{html.escape(path.name)}" alt="Sample: {html.escape(path.stem)}" '
        f'width="56" height="56"></button>'
        for path in SAMPLES
    )
