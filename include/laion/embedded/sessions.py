"""Sessions: handles kept between requests that name the same ``session_id``.

Used from the event loop's thread only, hence without locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from laion.embedded.engine import Handle
from laion.embedded.exception import DBError

MAX_SESSIONS = 2000  # An idle handle takes about 110 KB.
MAX_TIMEOUT_S = 3600


@dataclass
class _Session:
    handle: Handle
    expiry: asyncio.TimerHandle | None = None


class Sessions:
    """The living sessions of an engine."""

    def __init__(
        self, new: Callable[[], Handle], close: Callable[[Handle], Awaitable[None]]
    ) -> None:
        self._new = new
        self._close = close
        self._sessions: dict[str, _Session] = {}
        self._closing: set[asyncio.Future[None]] = set()

    def acquire(self, name: str, must_exist: bool) -> Handle:
        """The session's handle, for this request alone until `release`.

        Raises:
            DBError: the session is in use, or missing though it must exist, or there are too many.
        """
        if name in self._sessions:
            session = self._sessions[name]
            if session.expiry is None:
                raise DBError(
                    373, "SESSION_IS_LOCKED", f"Session {name} is locked by a concurrent client"
                )
            session.expiry.cancel()
            session.expiry = None
            return session.handle
        if must_exist:
            raise DBError(372, "SESSION_NOT_FOUND", f"Session {name} not found")
        if len(self._sessions) >= MAX_SESSIONS:
            raise DBError(
                202,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"The embedded ClickHouse keeps at most {MAX_SESSIONS} sessions at a time",
            )
        self._sessions[name] = session = _Session(self._new())
        return session.handle

    def release(self, name: str, timeout_s: int) -> None:
        """End the request's use; the session ends ``timeout_s`` seconds later unless used again."""
        session = self._sessions.get(name)
        if session is not None:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(timeout_s, self._expire, name)

    async def close(self) -> None:
        """End all sessions."""
        for name in list(self._sessions):
            self._expire(name)
        await asyncio.gather(*self._closing)

    def _expire(self, name: str) -> None:
        session = self._sessions.pop(name)
        if session.expiry is not None:
            session.expiry.cancel()
        closing = asyncio.ensure_future(self._close(session.handle))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
