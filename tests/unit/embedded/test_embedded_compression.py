"""Bodies that become much larger than what was sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest

from laion.embedded.compression import PIECE_BYTES, Decompressor, choose_compressor
from tests.embedded_server import EmbeddedServer
from tests.unit.embedded.conftest import assert_serves_others_during

MIB = 1 << 20
CODECS = ["gzip", "deflate", "zstd", "lz4"]
BOUNDED = ["gzip", "deflate", "lz4"]
"""Codecs whose format bounds how many bytes one may stand for."""
ROOM_MIB = 250
"""For a query of 64 MiB, twice, and what the engine takes; the bodies here are much larger."""


def compress(codec: str, chunks: Iterable[bytes]) -> bytes:
    _, compressor = choose_compressor(codec)
    return b"".join(map(compressor.compress, chunks)) + compressor.flush()


def bomb(codec: str, head: bytes, fill: bytes, size: int) -> bytes:
    """A small body that becomes `head` and then `size` times the byte `fill`."""
    return compress(codec, chain([head], repeat(fill * MIB, size // MIB)))


@contextmanager
def watched_memory(server: EmbeddedServer) -> Iterator[Callable[[], float]]:
    """How many MiB the server has grown by at most, since the block began."""
    done = threading.Event()
    seen = [resident_mib(server)]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(resident_mib(server))

    with ThreadPoolExecutor(1) as threads:
        threads.submit(watch)
        try:
            yield lambda: max(seen) - seen[0]
        finally:
            done.set()


def resident_mib(server: EmbeddedServer) -> float:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture
def sink(client) -> str:
    """A table that takes anything and keeps nothing."""
    client.command("CREATE TABLE sink (a UInt64) ENGINE = Null")
    return f"{client.database}.sink"


@pytest.mark.parametrize("codec", CODECS)
def test_a_body_is_decompressed_in_small_pieces(codec):
    size = 12 * MIB
    data = bomb(codec, b"head", b"\0", size)

    pieces = [len(piece) for piece in Decompressor(codec).feed(data)]

    assert max(pieces) <= PIECE_BYTES
    assert sum(pieces) == len(b"head") + size


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [1, 7, MIB])
def test_frames_come_out_whole_however_they_are_cut(codec, step):
    sizes = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES)
    frames = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    data = b"".join(compress(codec, [frame]) for frame in frames)
    decompressor = Decompressor(codec)

    pieces = [
        piece
        for at in range(0, len(data), step)
        for piece in decompressor.feed(data[at : at + step])
    ]

    decompressor.finish()
    assert b"".join(pieces) == b"".join(frames)


@pytest.mark.parametrize(("fmt", "room_mib"), [("TSV", 2 * ROOM_MIB), ("Parquet", ROOM_MIB)])
def test_an_insert_that_stands_for_thousands_of_times_its_size_is_refused(
    embedded, http, sink, fmt, room_mib
):
    body = bomb("zstd", f"INSERT INTO {sink} FORMAT {fmt}\n".encode(), b"x", 1024 * MIB)

    with watched_memory(embedded) as growth_mib:
        response = http.post(embedded.url, body, headers={"Content-Encoding": "zstd"})

    assert "stand for more than 1,100 times as many" in response.text
    # A value of TSV is in memory several times.
    assert growth_mib() < room_mib


@pytest.mark.parametrize("codec", BOUNDED)
def test_a_query_that_grows_too_large_is_refused_before_it_takes_the_memory(embedded, http, codec):
    body = bomb(codec, b"SELECT '", b"a", 512 * MIB)

    with watched_memory(embedded) as growth_mib:
        response = http.post(embedded.url, body, headers={"Content-Encoding": codec})

    assert response.headers["X-ClickHouse-Exception-Code"] == "229"
    assert growth_mib() < ROOM_MIB


@pytest.mark.parametrize("codec", BOUNDED)
def test_an_insert_may_grow_to_any_size_in_little_memory(embedded, http, sent, sink, codec):
    body = bomb(codec, f"INSERT INTO {sink} VALUES (1)".encode(), b" ", 256 * MIB)

    with watched_memory(embedded) as growth_mib:
        inserting = sent("POST", embedded.url, data=body, headers={"Content-Encoding": codec})
        assert_serves_others_during(embedded, inserting)

    assert inserting.result().status_code == 200
    assert growth_mib() < ROOM_MIB
