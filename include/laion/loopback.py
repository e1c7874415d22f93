"""Sockets of the servers that this package starts for one machine: they listen on 127.0.0.1."""

from __future__ import annotations

import socket

from laion.errors import PortUnavailable

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the port; 0 picks a free one. Raises PortUnavailable."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        # A second server on the same port only fails here when both have SO_REUSEADDR.
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise PortUnavailable(
            f"cannot listen on {HOST}:{port}: {error}; choose another port, or 0 for any free one"
        ) from error
    return listener
