"""A real SSH server with SFTP on a free port of 127.0.0.1, with one directory as its root."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from types import TracebackType

import asyncssh

USER = "deployer"
_KEYS = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("client", "stranger")}


class SshServer:
    """Lets in whoever has the client's key. A context manager."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def airflow_connection(
        self, key: str = "client", host_key: str | None = None, **extra: object
    ) -> str:
        """What belongs, as JSON, into an ``AIRFLOW_CONN_…`` of type SSH."""
        known = self.host_key if host_key is None else host_key
        private = _KEYS[key].export_private_key("openssh").decode()
        connection = {
            "conn_type": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "login": USER,
            "extra": {"private_key": private, "host_key": known, "look_for_keys": False, **extra},
        }
        if not known:
            del connection["extra"]["host_key"]  # type: ignore[attr-defined]
        return json.dumps(connection)

    @property
    def host_key(self) -> str:
        """The public half, as in known_hosts."""
        return " ".join(self._host_key.export_public_key().decode().split()[:2])

    def drop_connections(self) -> None:
        """End every connection as a host that goes down does, and take no new ones."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result()

    def __enter__(self) -> SshServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._connections: set[asyncssh.SSHServerConnection] = set()
        root = self._root

        class Server(asyncssh.SSHServer):
            def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
                connections.add(connection)

        connections = self._connections

        def sftp(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
            return asyncssh.SFTPServer(channel, chroot=str(root).encode())

        allowed = asyncssh.import_authorized_keys(_KEYS["client"].export_public_key().decode())
        self._listener = await asyncssh.create_server(
            Server,
            "127.0.0.1",
            0,
            server_host_keys=[self._host_key],
            authorized_client_keys=allowed,
            sftp_factory=sftp,
        )
        self.port = self._listener.get_port()

    async def _drop(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.abort()
        await self._listener.wait_closed()
