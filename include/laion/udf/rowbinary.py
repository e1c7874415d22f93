"""ClickHouse's format RowBinary, as far as String in and Array(Float32) out need it."""

from __future__ import annotations

from typing import BinaryIO

from laion.encoders.vectors import Vectors

EMPTY_ARRAY = b"\x00"

_MORE = 0x80
_BITS = 7


def read_string(stream: BinaryIO) -> bytes:
    """Return the next String. Raises EOFError when the stream ends before it does."""
    length, shift = 0, 0
    while True:
        byte = _read_exactly(stream, 1)[0]
        length |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return _read_exactly(stream, length)
        shift += _BITS


def encode_array(vector: Vectors) -> bytes:
    """Return a vector as Array(Float32)."""
    return encode_varuint(len(vector)) + vector.astype("<f4").tobytes()


def encode_varuint(number: int) -> bytes:
    """Return an unsigned number in ClickHouse's variable length."""
    encoded = bytearray()
    while number >= _MORE:
        encoded.append(number & ~_MORE & 0xFF | _MORE)
        number >>= _BITS
    encoded.append(number)
    return bytes(encoded)


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError(f"{count} bytes were announced, {len(data)} came")
    return data
