"""What goes back to the client: headers, blocks, exceptions in mid-stream."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from laion.embedded.compression import Compressor
from laion.embedded.engine import Stats
from laion.embedded.exception import DBError

_CONTENT_TYPES = {
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "tabseparatedwithnames": "text/tab-separated-values; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "pretty": "text/plain; charset=UTF-8",
}


@dataclass(frozen=True)
class Answer:
    """The outcome of a statement.

    ``format`` is None for a statement without a result set. ``blocks`` may block and may raise
    DBError, unless they are few and ``is_at_hand``.
    """

    blocks: Iterator[bytes]
    format: str | None = None
    stats: Stats = field(default_factory=Stats)
    is_at_hand: bool = False


class Identity:
    """The compressor of a response that is not compressed."""

    def compress(self, data: bytes) -> bytes:
        """Return the data themselves."""
        return data

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


def new_exception_tag() -> str:
    """A random mark by which a client tells an exception in mid-stream from data."""
    return secrets.token_hex(8)


def encode_blocks(
    answer: Answer, compressor: Compressor, tag: str, version: str
) -> Iterator[bytes]:
    """The bytes of the response's body.

    Raises:
        DBError: the statement failed. The exception has been written in the way of a server
            since 25.11, and the response must not be ended properly.
    """
    failure: DBError | None = None
    try:
        for block in answer.blocks:
            yield compressor.compress(block)
    except DBError as error:
        failure = error
        yield compressor.compress(_exception_frame(error.body(version), tag))
    yield compressor.flush()
    if failure is not None:
        raise failure


def answer_headers(answer: Answer) -> dict[str, str]:
    """The headers that describe an answer."""
    summary = {name: str(value) for name, value in vars(answer.stats).items()}
    headers = {"X-ClickHouse-Summary": json.dumps(summary)}
    if answer.format is not None:
        kind = _CONTENT_TYPES.get(answer.format.lower(), "application/octet-stream")
        headers |= {"X-ClickHouse-Format": answer.format, "Content-Type": kind}
    return headers


def _exception_frame(message: str, tag: str) -> bytes:
    text = message.encode()
    opening = f"\r\n__exception__\r\n{tag}\r\n".encode()
    return opening + text + f"{len(text)} {tag}\r\n__exception__\r\n".encode()
