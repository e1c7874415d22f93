"""Web servers on 127.0.0.1 that a source may meet: good ones, bad ones and none at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

Fault = Callable[["_Handler"], None]

STALL_LIMIT_S = 30
"""A stalled answer ends at the latest after this; tests end it by closing the mirror."""


class Mirror:
    """A web server for a directory, without Range support, that fails where it is told to.

    A context manager. `requests` lists what it was asked, such as `HEAD /img_emb/img_emb_0.npy`.
    """

    def __init__(self, directory: Path) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._faults: dict[str, tuple[str, Fault]] = {}
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self, directory=str(directory)))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return self.url_with("")

    def url_with(self, credentials: str) -> str:
        """Return the base URL with `user:password@` in it."""
        return f"http://{credentials}127.0.0.1:{self._server.server_port}"

    def fail(self, path_end: str, fault: Fault, method: str = "GET") -> None:
        """Answer requests for paths that end so with `fault` instead of the file."""
        self._faults[path_end] = (method, fault)

    def fault_for(self, method: str, path: str) -> Fault | None:
        for end, (only, fault) in self._faults.items():
            if path.endswith(end) and method in (only, ""):
                return fault
        return None

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(status: int) -> Fault:
    """A fault: an HTTP status without the file."""

    def fault(handler: _Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def send_part(body: bytes, announced: int | None) -> Fault:
    """A fault: `body`, then the end of the connection, after announcing another size or none."""

    def fault(handler: _Handler) -> None:
        handler.send_response(200)
        if announced is not None:
            handler.send_header("Content-Length", str(announced))
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def stall_after(body: bytes, announced: int) -> Fault:
    """A fault: `body`, and then nothing more until the mirror closes."""

    def fault(handler: _Handler) -> None:
        send_part(body, announced)(handler)
        handler.wfile.flush()
        handler.mirror.closing.wait(STALL_LIMIT_S)

    return fault


def unused_url() -> str:
    """Return a URL on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class _Server(ThreadingHTTPServer):
    """Waits, on closing, for the answers under way."""

    daemon_threads = False


class _Handler(SimpleHTTPRequestHandler):
    """Serves files unless the mirror has a fault for the path."""

    def __init__(self, mirror: Mirror, *arguments: object, directory: str) -> None:
        self.mirror = mirror
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:
        if not self._fail():
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self._fail():
            super().do_HEAD()

    def log_message(self, format: str, *arguments: object) -> None:
        """The mirror keeps its own list."""

    def _fail(self) -> bool:
        self.mirror.requests.append(f"{self.command} {self.path}")
        self.mirror.headers.append(dict(self.headers))
        fault = self.mirror.fault_for(self.command, self.path)
        if fault is None:
            return False
        fault(self)
        return True
