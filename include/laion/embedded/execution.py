"""Running a statement of a request on a handle."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request

from laion.embedded.answer import Answer
from laion.embedded.engine import Engine, Handle, Stream, quote_literal
from laion.embedded.exception import DBError, not_implemented
from laion.embedded.request import CHUNK_BYTES, Parameters, read_urlencoded, with_form
from laion.embedded.statement import (
    SHORT_BYTES,
    InlineInsert,
    find_format,
    find_unsupported,
    first_keyword,
    has_second_statement,
    split_insert,
)

_USUAL_MAX_QUERY_BYTES = 256 * 1024
_MAX_RESULT_IN_MEMORY_BYTES = 16 * 1024 * 1024
# Blocks of these formats can be put after each other; other formats have a head or a foot.
_STREAMED_FORMATS = frozenset({"native", "tabseparated", "tsv", "csv", "rowbinary", "jsoneachrow"})
_STREAMED_STATEMENTS = frozenset({b"SELECT", b"WITH"})
# Files read from their end: the engine would keep the whole body in memory.
SPOOLED_FORMATS = frozenset({"parquet", "orc", "arrow"})


def take_apart(
    request: Request, asked: Parameters, head: bytes, complete: bool
) -> tuple[Parameters, bytes, InlineInsert | None]:
    """The statement and what there is of its data, from the URL, a form and the body's ``head``.

    ``complete`` says that the head is the whole body. Also returns what is asked for, form
    included, and how the statement splits if it brings data along.

    Raises:
        DBError: the form has a field of another kind.
    """
    if complete and (fields := read_urlencoded(request, head)) is not None:
        asked, head = with_form(asked, fields), b""
    separator = b"\n" if asked.query and head else b""
    text = asked.query.encode() + separator + head
    return asked, text, split_insert(text)


def prepare(
    engine: Engine, handle: Handle, method: str, asked: Parameters, sql: bytes, values: bytes = b""
) -> bool:
    """Bring a handle into the state a request asks for, and check its statement.

    Blocks. Says whether the statement only reads. ``values`` is what follows its VALUES.

    Raises:
        DBError: a setting or the database is unknown, or the statement may not run this way.
    """
    handle.configure(asked.settings, asked.database, asked.query_id)
    _check_size(handle, sql)
    if (what := find_unsupported(sql)) is not None:
        raise not_implemented(what)
    _check_is_single(engine, handle, sql + values)
    found = engine.classify(sql, handle)
    if found.statement_count and method != "POST" and not found.allowed_by_get:
        raise DBError(
            164,
            "READONLY",
            "Cannot execute query in readonly mode. For queries over HTTP, "
            "method GET implies readonly. You should use method POST for modifying queries",
        )
    return found.read_only


def start_statement(
    engine: Engine,
    handle: Handle,
    method: str,
    asked: Parameters,
    text: bytes,
    insert: InlineInsert | None,
    spool: Path,
) -> Answer:
    """Run a statement, up to the first blocks or its end.

    Blocks. Some INSERTs with inline data are such a statement, see `needs_streaming`.

    Raises:
        DBError: it fails.
    """
    sql = text if insert is None else text[: insert.data_start]
    values = text[len(sql) :] if insert is not None and insert.format == "Values" else b""
    reads = prepare(engine, handle, method, asked, sql, values)
    if not text.strip():
        raise DBError(62, "SYNTAX_ERROR", "Syntax error: Empty query")
    fmt = (find_format(text) if insert is None else None) or asked.default_format
    if reads and fmt.lower() in _STREAMED_FORMATS and first_keyword(text) in _STREAMED_STATEMENTS:
        stream = handle.stream(text, asked.default_format, asked.params)
        if asked.wait_end_of_query:
            blocks, is_at_hand = _collect(stream, spool)
            return Answer(blocks, fmt, stream.stats, is_at_hand)
        blocks = _blocks_of(stream)
        first, has_ended = _read_ahead(blocks)
        if has_ended:
            return Answer(iter(first), fmt, stream.stats, is_at_hand=True)
        return Answer(_Prefetched(first, blocks), fmt, stream.stats)
    result = handle.query(text, asked.default_format, asked.params)
    has_result_set = reads or result.data != b""
    is_at_hand = len(result.data) <= CHUNK_BYTES
    blocks = _slices_of(result.data)
    return Answer(blocks, fmt if has_result_set else None, result.stats, is_at_hand)


def needs_streaming(insert: InlineInsert, asked: Parameters, complete: bool) -> bool:
    """Whether to stream an INSERT's data, as opposed to running it as one text.

    VALUES may hold expressions and the statement query parameters, which the engine only takes
    in a text.
    """
    if not asked.params:
        return not (complete and insert.format == "Values")
    if not complete:
        raise not_implemented("An INSERT with query parameters and more than 1 MiB of data")
    return False


def insert_from_file(insert: InlineInsert, path: Path) -> bytes:
    """The statement that inserts a file instead of inline data."""
    source = f" FROM INFILE {quote_literal(str(path))} ".encode()
    return insert.target + source + insert.settings + f" FORMAT {insert.format}".encode()


def insert_from_pipe(insert: InlineInsert, path: Path) -> bytes:
    """The statement that inserts what arrives in a `Pipe`.

    One thread reads and writes by turns: two have 50 MB more in memory for each large INSERT.
    """
    settings = b"SETTINGS max_threads = 1"
    if given := insert.settings[len("SETTINGS") :]:
        settings += b"," + given
    source = f" FROM INFILE {quote_literal(str(path))} COMPRESSION 'lz4' ".encode()
    return insert.target + source + settings + f" FORMAT {insert.format}".encode()


def _check_is_single(engine: Engine, handle: Handle, text: bytes) -> None:
    """Refuse what looks like two statements.

    The engine has the last word about short texts: it takes blanks and quotes beyond ASCII. Of long
    ones it would count the statements for minutes.
    """
    if has_second_statement(text) and (
        len(text) > SHORT_BYTES or engine.classify(text, handle).statement_count > 1
    ):
        raise DBError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")


def _check_size(handle: Handle, sql: bytes) -> None:
    """Refuse what the engine will not parse for its length, before it is looked at for its kind."""
    if len(sql) <= _USUAL_MAX_QUERY_BYTES:
        return
    answer = handle.query(b"SELECT getSetting('max_query_size')", "TSVRaw", {})
    limit = int(answer.data)
    if 0 < limit < len(sql):
        raise DBError(
            62,
            "SYNTAX_ERROR",
            "Max query size exceeded (can be increased with the `max_query_size` setting): "
            f"the statement has {len(sql)} bytes, more than {limit}",
        )


def _blocks_of(stream: Stream) -> Iterator[bytes]:
    try:
        while (block := stream.fetch()) is not None:
            yield block
    finally:
        stream.cancel()


def _read_ahead(blocks: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """Take the first chunk's worth of blocks, as a server fills a buffer; say whether that is all.

    Most results are smaller, and then no thread is asked for the rest.
    """
    taken: list[bytes] = []
    size = 0
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size >= CHUNK_BYTES:
            return taken, False
    return taken, True


def _slices_of(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def _read_all(file: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def close_blocks(blocks: Iterator[bytes]) -> None:
    """Stop the statement behind an answer, if it still runs. Blocks."""
    close = getattr(blocks, "close", None)
    if close is not None:
        close()


class _Prefetched(Iterator[bytes]):
    """Blocks of which the first have been taken already; closing it stops the query."""

    def __init__(self, first: list[bytes], rest: Iterator[bytes]) -> None:
        self._chained = itertools.chain(first, rest)
        self._rest = rest

    def __next__(self) -> bytes:
        return next(self._chained)

    def close(self) -> None:
        close_blocks(self._rest)


def _collect(stream: Stream, spool: Path) -> tuple[Iterator[bytes], bool]:
    """Take all blocks of a query, on disk if there are many, before giving the first.

    Also says whether they are at hand.
    """
    spooled = tempfile.SpooledTemporaryFile(  # noqa: SIM115, closed when it has been read
        _MAX_RESULT_IN_MEMORY_BYTES, dir=str(spool)
    )
    try:
        for block in _blocks_of(stream):
            spooled.write(block)
    except BaseException:
        spooled.close()
        raise
    size = spooled.tell()
    spooled.seek(0)
    return _read_all(spooled), size <= CHUNK_BYTES
