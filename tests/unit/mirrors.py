"""Web servers on 127.0.0.1 that a source may meet: good ones, bad ones and none at all."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self.host = host
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self._faults: dict[str, tuple[str, Fault]] = {}
        self._server = _server_class(host)(
            (host, 0), partial(_Handler, self, directory=str(directory))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return self.url_with("")

    def url_with(self, credentials: str) -> str:
        """Return the base URL with `user:password@` in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{credentials}{host}:{self._server.server_port}"

    def fail(self, path_end: str, fault: Fault, method: str = "GET") -> None:
        """Answer requests for paths that end so with `fault`; any method for an empty one."""
        self._faults[path_end] = (method, fault)

    def fault_for(self, method: str, path: str) -> Fault | None:
        for end, (only, fault) in self._faults.items():
            if path.endswith(end) and only in (method, ""):
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


def answer(status: int, headers: Mapping[str, str] | None = None) -> Fault:
    """A fault: an HTTP status without the file."""

    def fault(handler: _Handler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def send_part(
    body: bytes, announced: int | None, headers: Mapping[str, str] | None = None
) -> Fault:
    """A fault: `body`, then the end of the connection, after announcing another size or none."""

    def fault(handler: _Handler) -> None:
        handler.send_response(200)
        if announced is not None:
            handler.send_header("Content-Length", str(announced))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def stall_after(body: bytes, announced: int, headers: Mapping[str, str] | None = None) -> Fault:
    """A fault: `body`, and then nothing more until the mirror closes."""

    def fault(handler: _Handler) -> None:
        send_part(body, announced, headers)(handler)
        handler.wfile.flush()
        handler.mirror.closing.wait(STALL_LIMIT_S)

    return fault


@dataclass
class VersionedFile:
    """An answer: one version of a file, with the validators and Range support of a good server.

    Each entry of `cuts` lets one answer end after so many bytes of its body, each of `resets` by a
    reset, which may cost the reader bytes that were sent before. Without `ranges` the Range of a
    request is ignored; without `heeds_if_range` only its If-Range.
    """

    body: bytes
    etag: str = '"v1"'
    last_modified: str = ""
    ranges: bool = True
    heeds_if_range: bool = True
    cuts: list[int] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: _Handler) -> None:
        start = self._start(handler)
        if start is not None and start >= len(self.body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        rest = self.body[start or 0 :]
        handler.send_response(200 if start is None else 206)
        if start is not None:
            last, size = len(self.body) - 1, len(self.body)
            handler.send_header("Content-Range", f"bytes {start}-{last}/{size}")
        handler.send_header("Content-Length", str(len(rest)))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.last_modified)):
            if value:
                handler.send_header(name, value)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.cuts:
            handler.wfile.write(rest[: self.cuts.pop(0)])
            handler.close_connection = True
        elif self.resets:
            handler.wfile.write(rest[: self.resets.pop(0)])
            reset(handler)
        else:
            handler.wfile.write(rest)

    def _start(self, handler: _Handler) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        changed = condition not in (None, self.etag, self.last_modified)
        if asked is None or not self.ranges or (changed and self.heeds_if_range):
            return None
        return int(asked[1])


def reset(handler: _Handler) -> None:
    """End the connection as a crash would: the peer's reads fail."""
    handler.wfile.flush()
    linger_not = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    handler.connection.close()
    handler.close_connection = True


def in_turn(*answers: Fault) -> Fault:
    """A fault: one answer after the other, the last one for ever."""
    left = list(answers)

    def fault(handler: _Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return fault


def redirect(location: str) -> Fault:
    """A fault: `302 Found` somewhere else."""

    def fault(handler: _Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def unused_url() -> str:
    """Return a URL on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class _Server(ThreadingHTTPServer):
    """Waits, on closing, for the answers under way."""

    daemon_threads = False


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _ServerV6 if ":" in host else _Server


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
