"""HTTP content encodings, as streams: gzip, deflate, zstd and lz4 (frame)."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lz4.frame

from laion.embedded.exception import DBError, not_implemented

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 256 * 1024
"""What is decompressed at a time: a few bytes may stand for gigabytes."""

MAX_RATIO = 1100
"""Bytes that one of a body may stand for, beyond `FREE_BYTES`: gzip and lz4 reach 1,032 and 255 at
most; zstd makes gigabytes of 64 kB."""
FREE_BYTES = 16 * 1024 * 1024

_SLICE_BYTES = 64 * 1024


class _Inflater:
    """zlib's decompressor with the manners of the other two, which keep what they have not read."""

    def __init__(self, wbits: int = zlib.MAX_WBITS) -> None:
        self._stream = zlib.decompressobj(wbits)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


_DECOMPRESSORS: dict[str, tuple[Callable[[], Any], int, str]] = {
    "gzip": (lambda: _Inflater(wbits=31), 354, "ZLIB_INFLATE_FAILED"),
    "deflate": (_Inflater, 354, "ZLIB_INFLATE_FAILED"),
    "zstd": (zstd.ZstdDecompressor, 561, "ZSTD_DECODER_FAILED"),
    "lz4": (lz4.frame.LZ4FrameDecompressor, 618, "LZ4_DECODER_FAILED"),
}


class Compressor(Protocol):
    """Turns a stream of bytes into its compressed form."""

    def compress(self, data: bytes) -> bytes:
        """Take more bytes; return what is ready."""

    def flush(self) -> bytes:
        """Return the rest and the end mark."""


class _Lz4Compressor:
    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._frame.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._head + bytes(self._frame.flush())


_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "lz4": _Lz4Compressor,
    "zstd": lambda: zstd.ZstdCompressor(level=1),
    "gzip": lambda: zlib.compressobj(level=1, wbits=31),
    "deflate": lambda: zlib.compressobj(level=1),
}


class Decompressor:
    """Decompresses a body of one or more concatenated frames.

    Raises:
        DBError: the encoding is not supported, the data are broken or end too early.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in _DECOMPRESSORS:
            raise not_implemented(f"Content-Encoding '{encoding}'")
        self._new, self._code, self._name = _DECOMPRESSORS[encoding]
        self._frame: Any = None
        self._taken = self._given = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decompress to, in pieces of at most `PIECE_BYTES`, some empty.

        Data that stand for more than `MAX_RATIO` times their size end in an error.
        """
        self._taken += len(data)
        for start in range(0, len(data), _SLICE_BYTES):
            rest = data[start : start + _SLICE_BYTES]
            while rest:
                if self._frame is None:
                    self._frame = self._new()
                yield (piece := self._decompress(rest))
                while len(piece) == PIECE_BYTES and not self._frame.eof:
                    yield (piece := self._decompress(b""))
                if not self._frame.eof:
                    break
                rest = self._frame.unused_data or b""
                self._frame = None

    def finish(self) -> None:
        """Check that the last frame is complete."""
        if self._frame is not None:
            raise DBError(self._code, self._name, "The compressed body ends too early.")

    def _decompress(self, data: bytes) -> bytes:
        try:
            piece = bytes(self._frame.decompress(data, PIECE_BYTES))
        except (zlib.error, zstd.ZstdError, RuntimeError) as error:
            raise DBError(self._code, self._name, str(error)) from error
        self._given += len(piece)
        if self._given > max(FREE_BYTES, MAX_RATIO * self._taken):
            raise DBError(
                self._code,
                self._name,
                f"{self._taken:,} bytes stand for more than {MAX_RATIO:,} times as many. Send the "
                "data with less compression.",
            )
        return piece


def choose_compressor(accept_encoding: str) -> tuple[str, Compressor] | None:
    """The first encoding of an ``Accept-Encoding`` header that can be served, and its encoder."""
    for item in accept_encoding.split(","):
        name, _, quality = item.strip().lower().partition(";")
        if name in _COMPRESSORS and quality.replace(" ", "") not in ("q=0", "q=0.0"):
            return name, _COMPRESSORS[name]()
    return None
