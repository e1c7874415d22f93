"""Serve the sample's files over HTTP on this machine, as a mirror of LAION would, and pictures.

`/cat/20000041.jpg` is the picture of the item whose URL ends so, drawn when it is
asked for. Range, If-Range, ETag and Last-Modified work, so that a download can be resumed.
"""

from __future__ import annotations

import io
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from laion.errors import SampleMissing
from laion.loopback import HOST, listen
from laion.sample.dataset import SHARD_ROWS, URLS_PER_SHARD
from laion.sample.items import Scenario, Stream, all_scenarios, draw_items, generator
from laion.sample.pictures import JPEG_QUALITY, render_picture

SHUTDOWN_TIMEOUT_S = 2


def create_app(directory: Path | str) -> Starlette:
    """Return an application that serves the regular files below `directory`, and the pictures.

    Everything else, a link that leads out of the directory included, is answered by 404.
    Raises `SampleMissing`.
    """
    if not Path(directory).is_dir():
        raise SampleMissing(f"{directory} is no directory. Write the sample dataset there first.")
    return Starlette(
        routes=[
            Route("/{slug}/{number:int}.jpg", _picture),
            Mount("/", StaticFiles(directory=directory)),
        ]
    )


def serve(directory: Path | str, port: int) -> None:
    """Serve `directory` on 127.0.0.1 until SIGTERM or SIGINT, then return.

    Prints one line, the server's URL, once requests are answered; with `port` 0 it tells the
    port the system chose. Must run in the main thread, because it handles signals.
    Raises `SampleMissing` or `PortUnavailable`.
    """
    config = uvicorn.Config(
        create_app(directory),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )
    with listen(port) as listener, _stop_on_signals():
        _AnnouncingServer(config).run(sockets=[listener])


def _picture(request: Request) -> Response:
    shard, row = divmod(request.path_params["number"], URLS_PER_SHARD)
    if shard >= len(SHARD_ROWS) or row >= SHARD_ROWS[shard]:
        raise HTTPException(404)
    scenario = _scenarios_of(shard)[row]
    if scenario.subject.slug != request.path_params["slug"]:
        raise HTTPException(404)
    picture = render_picture(scenario, generator(shard, row, Stream.PICTURES))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=JPEG_QUALITY)
    return Response(content.getvalue(), media_type="image/jpeg")


@cache
def _scenarios_of(shard: int) -> list[Scenario]:
    items = draw_items(shard, SHARD_ROWS[shard])
    return [all_scenarios()[index] for index in items.scenarios.tolist()]


class _AnnouncingServer(uvicorn.Server):
    """A server that prints its URL when it is ready."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            print(f"http://{HOST}:{listener.getsockname()[1]}/", flush=True)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Leave the block quietly on SIGTERM and SIGINT.

    Uvicorn shuts down on these signals and then raises them again for the handlers it found;
    the default ones would end the process with a failure.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Stopped

    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class _Stopped(BaseException):
    """Raised by the signal handlers; passes through every `except Exception`."""
