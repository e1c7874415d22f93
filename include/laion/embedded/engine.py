"""The chDB engine: the only module that knows chDB.

A process can host one engine. Settings, temporary tables and the current database belong to a
`Handle`, so requests do not see each other's. Calls release the GIL; all may block.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import chdb

from laion.embedded.config import Layout
from laion.embedded.exception import parse_exception
from laion.embedded.statement import SHORT_BYTES, first_keyword, remembered
from laion.errors import EmbeddedFailed, EmbeddedPathLocked, EmbeddedPathUnusable

T = TypeVar("T")

_chdb: Any = chdb._chdb  # A binary module without types.

# Importing chdb has opened an engine in memory and replaced the process's signal handlers.
_chdb.reset_signal_handlers()
_chdb.set_signal_handlers_enabled(0)

# chDB accepts `1 + 1` for `SELECT 1 + 1`; a server does not.
_SERVER_LIKE = {"implicit_select": "0"}
_HARMLESS_WHEN_READONLY = frozenset({b"SET", b"USE"})


@dataclass(frozen=True)
class Stats:
    """What a statement read and wrote, and how long it took."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    elapsed_ns: int = 0

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


@dataclass(frozen=True)
class Result:
    """The formatted result of a statement."""

    data: bytes
    stats: Stats


@dataclass(frozen=True)
class Classification:
    """What a statement is, without having run it."""

    read_only: bool
    allowed_by_get: bool
    statement_count: int


class Stream:
    """The blocks of a running query, each formatted by itself."""

    def __init__(self, handle: Handle, running: Any) -> None:
        self._handle = handle
        self._running = running
        self.stats = Stats()

    def fetch(self) -> bytes | None:
        """The next block; None after the last."""
        if self._running is None:
            return None
        chunk = self._handle.call(lambda c: c.streaming_fetch_result(self._running))
        if chunk is None or chunk.rows_read() == 0:
            self._running = None
            return None
        self.stats += _stats_of(chunk)
        return bytes(chunk.bytes())

    def cancel(self) -> None:
        """Stop the query, unless it has ended."""
        running, self._running = self._running, None
        if running is not None:
            self._handle.call(lambda c: c.streaming_cancel_query(running))


class Handle:
    """One client's view of the engine: its settings, current database and temporary tables.

    It connects when it is first used, in the thread that uses it.
    """

    def __init__(self, connect: Callable[[], Any], baseline: Mapping[str, str]) -> None:
        self._connect = connect
        self._connection: Any = None
        self._lock = threading.Lock()
        self._baseline = dict(baseline)
        self._applied: dict[str, str] = {}
        self._home = self._database = "default"

    def call(self, action: Callable[[Any], T]) -> T:
        """Run ``action`` on chDB's connection.

        Raises:
            DBError: the engine says so.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return action(self._connection)
            except (RuntimeError, UnicodeDecodeError) as error:
                # chDB keeps what a failed query had already formatted and would put it before
                # the next result of this connection; an empty query takes it away.
                if self._connection is not None:
                    self._connection.query("")
                raise parse_exception(_text_of(error)) from error

    def configure(self, settings: Mapping[str, str], database: str, query_id: str) -> None:
        """Put ``settings`` and ``database`` in force for the next statement, and only those.

        What an earlier call had set goes back to its value for this handle. An empty
        ``database`` means the handle's own. The ``query_id`` becomes the ``log_comment``,
        unless there is one.
        """
        wanted = _SERVER_LIKE | dict(settings)
        if "log_comment" not in self._baseline:
            wanted.setdefault("log_comment", query_id)
        changes = [
            f"{n} = {quote_literal(v)}" for n, v in wanted.items() if self._applied.get(n) != v
        ]
        changes += [self._restored(name) for name in self._applied if name not in wanted]
        if changes:
            self.call(lambda c: c.query("SET " + ", ".join(changes)))
            self._applied = wanted
        self._use(database or self._home)

    def query(self, sql: bytes, fmt: str, params: Mapping[str, str]) -> Result:
        """Run a statement; its result is complete in memory.

        SET and USE stay in force for this handle.
        """
        keyword = first_keyword(sql)
        if keyword in (b"SET", b"USE"):
            self._forget_request()
        result = self.call(lambda c: c.query(sql, fmt, params=dict(params)))
        if keyword == b"SET":
            self._baseline = self._changed_settings()
        elif keyword == b"USE":
            row = self.call(lambda c: c.query("SELECT currentDatabase()", "TSVRaw"))
            self._home = self._database = row.bytes().decode().rstrip("\n")
        # Not get_memview: its view dangles once the result is collected.
        return Result(result.bytes(), _stats_of(result))

    def stream(self, sql: bytes, fmt: str, params: Mapping[str, str]) -> Stream:
        """Start a SELECT in a format whose blocks can be put after each other."""
        running = self.call(lambda c: c.send_query(sql, fmt, params=dict(params)))
        return Stream(self, running)

    def close(self) -> None:
        """Free the handle, after the call in progress."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _use(self, database: str) -> None:
        if database != self._database:
            name = database.replace("\\", "\\\\").replace("`", "\\`")
            self.call(lambda c: c.query(f"USE `{name}`"))
            self._database = database

    def _forget_request(self) -> None:
        if self._applied:
            restored = ", ".join(map(self._restored, self._applied))
            self.call(lambda c: c.query("SET " + restored))
            self._applied = {}
        self._use(self._home)

    def _restored(self, name: str) -> str:
        value = self._baseline.get(name)
        if value is None:
            return f"{name} = DEFAULT"
        # system.settings shows some values as expressions, quoted already: 'auto(2)'.
        is_literal = len(value) > 1 and value[0] == value[-1] == "'"
        return f"{name} = {value if is_literal else quote_literal(value)}"

    def _changed_settings(self) -> dict[str, str]:
        sql = "SELECT name, value FROM system.settings WHERE changed"
        lines = self.call(lambda c: c.query(sql, "JSONCompactEachRow")).bytes().splitlines()
        return dict(json.loads(line) for line in lines)


class Engine:
    """The open engine. Use `open_engine`."""

    def __init__(self, layout: Layout, first: Any) -> None:
        self._path = str(layout.data)
        self._handles: set[Handle] = set()
        self._own = Handle(lambda: first, {})
        self._baseline = self._own._changed_settings()
        row = self._own.query(b"SELECT version(), timezone()", "TSVRaw", {})
        self.version, self.timezone = row.data.decode().split()
        self._classify_short = remembered(lambda sql: _classify(self._own, sql))

    def new_handle(self) -> Handle:
        """A fresh handle, to be given back to `close_handle`."""
        handle = Handle(lambda: _chdb.connect(self._path), self._baseline)
        self._handles.add(handle)
        return handle

    def close_handle(self, handle: Handle) -> None:
        """Free a handle, after the call in progress."""
        self._handles.discard(handle)
        handle.close()

    def classify(self, sql: bytes, handle: Handle) -> Classification:
        """Parse a statement without running it.

        For a long one that can take the engine seconds, in which ``handle``, its own request's, is
        in use, and not the one that all share.
        """
        return self._classify_short(sql) if len(sql) <= SHORT_BYTES else _classify(handle, sql)

    def kill_read_only(self, log_comment: str) -> None:
        """Cancel the reading queries with this ``log_comment``; does not wait for their end."""
        self._kill(
            f"Settings['log_comment'] = {quote_literal(log_comment)} "
            "AND query_kind IN ('Select', 'Show', 'Describe', 'Explain')"
        )

    def kill_insert(self, path: Path) -> bool:
        """Cancel the INSERT that reads from this path; return whether it is running."""
        literal = quote_literal(quote_literal(str(path)))
        return self._kill(f"query_kind = 'Insert' AND position(query, {literal}) > 0")

    def kill_all(self) -> None:
        """Cancel everything that runs; does not wait for its end."""
        self._kill("1")

    def free_memory(self) -> None:
        """Return the memory the engine's allocator holds but does not use."""
        self._own.call(lambda c: c.query("SYSTEM JEMALLOC PURGE"))

    def close(self) -> None:
        """Close all handles and the engine."""
        for handle in list(self._handles):
            self.close_handle(handle)
        self._own.close()

    def _kill(self, condition: str) -> bool:
        """Tell running queries to end; return whether there were any."""
        killed = self._own.call(lambda c: c.query(f"KILL QUERY WHERE {condition} ASYNC"))
        return bool(killed.size())


@contextmanager
def open_engine(layout: Layout) -> Iterator[Engine]:
    """Own the directory and run the engine on it.

    Raises:
        EmbeddedPathUnusable: the directory cannot be made or written.
        EmbeddedPathLocked: another process owns it.
        EmbeddedFailed: the engine does not start.
    """
    with _locked(layout):
        engine = Engine(layout, _connect(layout))
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        lock: IO[str] = layout.lock.open("w")
    except OSError as error:
        raise EmbeddedPathUnusable(
            f"cannot write to {layout.root}: {error.strerror}; choose another --path"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedPathLocked(
                f"{layout.root} is in use by another embedded ClickHouse; stop that one first"
            ) from error
        try:
            layout.prepare()
        except OSError as error:
            raise EmbeddedPathUnusable(
                f"cannot write to {layout.root}: {error.strerror}; choose another --path"
            ) from error
        yield


def _connect(layout: Layout) -> Any:
    options = f"config-file={layout.config}&log-level=warning"
    with _stderr_of_engine() as told:
        try:
            return _chdb.connect(f"{layout.data}?{options}")
        except RuntimeError as error:
            reason = next((line for line in told() if "DB::Exception" in line), str(error))
    if "CANNOT_OPEN_FILE" in reason and "lock" in reason:
        raise EmbeddedPathLocked(f"{layout.root} is in use by another process: {reason}")
    raise EmbeddedFailed(f"the engine does not start on {layout.root}: {reason}")


@contextmanager
def _stderr_of_engine() -> Iterator[Callable[[], list[str]]]:
    """Keep what the engine writes to file descriptor 2, where it explains a failed start."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as capture:

        def told() -> list[str]:
            capture.seek(0)
            return capture.read().decode(errors="replace").splitlines()

        os.dup2(capture.fileno(), 2)
        try:
            yield told
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _classify(handle: Handle, sql: bytes) -> Classification:
    found = handle.call(lambda c: c.classify_query(sql))
    read_only = found["query_class"].name == "READ_ONLY"
    return Classification(
        read_only=read_only,
        allowed_by_get=read_only or first_keyword(sql) in _HARMLESS_WHEN_READONLY,
        statement_count=found["statement_count"],
    )


def _stats_of(result: Any) -> Stats:
    return Stats(
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        result_rows=result.rows_read(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )


def _text_of(error: Exception) -> str:
    """Return what chDB says, also where it quotes a statement that is no UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        return bytes(error.object).decode(errors="replace")
    return str(error)


def quote_literal(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
