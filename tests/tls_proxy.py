"""TLS in front of a server that speaks none, with a certificate that a test may trust or not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

HOST = "127.0.0.1"


@contextmanager
def tls_in_front_of(port: int, directory: Path) -> Iterator[tuple[int, Path]]:
    """Yield (port, certificate of the authority): what comes in there goes on to `port`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    with socket.create_server((HOST, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        yield listener.getsockname()[1], directory / "ca.pem"
        # Ends the waiting accept as well, which close alone does not.
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=_forward, args=(accepted, context, port), daemon=True).start()


def _forward(accepted: socket.socket, context: ssl.SSLContext, port: int) -> None:
    # A client that does not trust the certificate hangs up.
    with (
        contextlib.suppress(OSError),
        accepted,
        context.wrap_socket(accepted, server_side=True) as outside,
        socket.create_connection((HOST, port)) as inside,
    ):
        answers = threading.Thread(target=_copy, args=(inside, outside), daemon=True)
        answers.start()
        _copy(outside, inside)
        answers.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
