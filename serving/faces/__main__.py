"""`python -m serving.faces`: run the face service. `sightline serve` starts it."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: the search has its own threads, see `matching`

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Literal

import click

from serving.contract.errors import GalleryError, Unavailable, UsageError
from serving.contract.image_limits import ImageLimits
from serving.contract.logs import configure
from serving.faces.galleries.stores import open_store
from serving.faces.service.pool import face_pool
from serving.faces.service.server import FaceServer, FaceService, LazyStore
from serving.faces.settings import read_face_settings

log = logging.getLogger(__name__)


@click.command()
@click.option("--socket", "path", help="Unix socket to listen on.  [default: SIGHTLINE_FACES_SOCKET]")
@click.option("--log-format", envvar="SIGHTLINE_LOG_FORMAT", type=click.Choice(["json", "text"]), default="text")
@click.option("--max-image-bytes", envvar="SIGHTLINE_MAX_IMAGE_BYTES", default=ImageLimits().max_image_bytes)
@click.option("--max-image-pixels", envvar="SIGHTLINE_MAX_IMAGE_PIXELS", default=ImageLimits().max_image_pixels)
def service(path: str | None, log_format: Literal["json", "text"], max_image_bytes: int, max_image_pixels: int) -> None:
    """Detect, encode and recognise faces for the gateways of this machine, until SIGTERM."""
    configure(log_format, "INFO")
    settings = read_face_settings(os.environ)
    where = path or settings.socket
    if not where:
        raise UsageError(
            "The face service has no socket to listen on.", hint="Give --socket or SIGHTLINE_FACES_SOCKET."
        )
    store = LazyStore(lambda: open_store(settings.url, settings.key))
    try:
        store.get()
    except (Unavailable, GalleryError) as exc:  # a wrong setting ends the service, a store that is away does not
        log.warning("the galleries cannot be opened, requests are answered with this error until they can: %s", exc)
    pool = face_pool(settings, ImageLimits(max_image_bytes, max_image_pixels))
    with FaceServer(Path(where), FaceService(pool, store)) as server:
        _stop_on_signals(server)
        log.info("%d face process(es), galleries at %s", settings.processes, settings.url.rpartition("@")[2])
        server.serve_forever()
    pool.close()
    store.close()


def _stop_on_signals(server: FaceServer) -> None:
    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        threading.Thread(target=server.shutdown).start()  # shutdown waits for the loop that this handler interrupts

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


if __name__ == "__main__":
    from sightline.cli import run

    run(service, "python -m serving.faces")
