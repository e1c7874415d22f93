"""The command line: ``python -m laion.embedded --path DIR --port N``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from laion.embedded.app import THREADS, make_app
from laion.embedded.config import Layout
from laion.embedded.engine import Engine, open_engine
from laion.errors import LaionError
from laion.loopback import HOST, listen

_GRACE_S = 5
_DESCRIPTION = """\
An embedded ClickHouse: the ClickHouse engine in one small process, serving the ClickHouse HTTP
interface on 127.0.0.1. It is a stand-in for a ClickHouse server on one machine, for trying and
testing; production uses a ClickHouse server. The user is `default`; its password is the value of
the environment variable CLICKHOUSE_PASSWORD, by default empty."""


class _Server(uvicorn.Server):
    """A uvicorn that says when it is ready, and whose signals end it without ending the process."""

    def __init__(self, config: uvicorn.Config, engine: Engine, url: str) -> None:
        super().__init__(config)
        self._engine = engine
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"Embedded ClickHouse ready at {self._url}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(self._engine.kill_all)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def main() -> int:
    """Run until SIGTERM or SIGINT; the result is the exit code."""
    args = _parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # How a response is cut off on purpose, after an exception in mid-stream.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "returned without completing response" not in record.getMessage()
    )
    try:
        _serve(args.path.absolute(), args.port, os.environ.get("CLICKHOUSE_PASSWORD", ""))
    except LaionError as error:
        print(f"laion.embedded: {error}", file=sys.stderr)
        return 1
    return 0


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m laion.embedded", description=_DESCRIPTION)
    parser.add_argument("--path", type=Path, required=True, help="directory that holds everything")
    parser.add_argument("--port", type=int, required=True, help="TCP port; 0 picks a free one")
    return parser.parse_args()


def _serve(path: Path, port: int, password: str) -> None:
    layout = Layout(path)
    with (
        listen(port) as listener,
        open_engine(layout) as engine,
        ThreadPoolExecutor(THREADS, thread_name_prefix="query") as threads,
    ):
        config = uvicorn.Config(
            make_app(engine, threads, layout.spool, password),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        _Server(config, engine, url).run([listener])


if __name__ == "__main__":
    sys.exit(main())
