"""Real ends of alert channels: a web hook and a mail server."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from aiosmtpd.controller import Controller


class WebHook:
    """Keeps the JSON bodies it is sent. A context manager."""

    def __init__(self, status: int = 204) -> None:
        self.messages: list[dict[str, Any]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """As Apprise names it."""
        return f"json://{self.address}/"

    def about(self, text: str) -> list[dict[str, Any]]:
        """Return the messages whose title or body holds `text`."""
        return [m for m in self.messages if text in m["title"] or text in m["message"]]

    def __enter__(self) -> WebHook:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class MailServer:
    """Keeps the mails it is sent. A context manager."""

    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 OK"

    @property
    def url(self) -> str:
        """As Apprise names it."""
        port = self._controller.server.sockets[0].getsockname()[1]
        return f"mailto://127.0.0.1:{port}/?from=airflow@example.org&to=ops@example.org"

    def __enter__(self) -> MailServer:
        self._controller = _AnyPort(self, hostname="127.0.0.1", port=0)
        self._controller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._controller.stop()


class _AnyPort(Controller):
    """aiosmtpd greets its own server to see that it runs, on the port that it was given."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
