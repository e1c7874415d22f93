"""The invariants, by code of its own: files of the source against ClickHouse over plain HTTP.

Nothing here imports the package under test. The first half never looks at the ledger; the second
judges the ledger by what the tables hold.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import requests

IDS_PER_SHARD = 100_000_000
TEXTS = ("url", "caption", "NSFW", "LICENSE")
SIZES = ("width", "height", "original_width", "original_height")
VECTORS = {"image_embedding": "img_emb", "text_embedding": "text_emb"}
EVERYTHING = (
    "id, url, caption, NSFW, similarity, image_embedding, text_embedding, shard, LICENSE, width, "
    "height, original_width, original_height, key"
)
READ_EVERY_S = 0.05

Seen = tuple[int, int, int]
"""What a reader sees of a shard: rows, distinct ids, a hash of everything."""


@dataclass(frozen=True)
class ClickHouse:
    """A database of a ClickHouse server, over HTTP."""

    url: str
    password: str
    database: str

    def bytes(self, query: str, timeout_s: float = 60) -> bytes:
        answer = requests.post(
            self.url,
            params={"database": self.database},
            data=query.encode(),
            auth=("default", self.password),
            timeout=timeout_s,
        )
        if answer.status_code != 200:
            raise OSError(answer.text[:300])
        return answer.content

    def rows(self, query: str, timeout_s: float = 60) -> list[list[Any]]:
        text = self.bytes(f"{query} FORMAT TabSeparated", timeout_s).decode()
        return [line.split("\t") for line in text.splitlines()]

    def arrow(self, query: str) -> pa.Table:
        settings = "output_format_arrow_string_as_string = 0"
        body = self.bytes(f"{query} SETTINGS {settings} FORMAT ArrowStream")
        with pa.ipc.open_stream(io.BytesIO(body)) as stream:
            return stream.read_all()


def compare_shard(clickhouse: ClickHouse, table: str, source: Path, shard: int) -> list[str]:
    """Return every way in which the rows of a shard are not those of the source's files.

    Compares all values of all rows: texts byte by byte, vectors as the float32 that equals the
    source's float16.
    """
    query = f"SELECT {EVERYTHING} FROM {table} WHERE shard = {shard} ORDER BY id"
    found = clickhouse.arrow(query)
    metadata = pq.read_table(source / "metadata" / f"metadata_{shard}.parquet")
    rows = len(metadata)
    if len(found) != rows:
        return [f"shard {shard}: {len(found)} rows, the source has {rows}"]
    wrong = []
    ids = np.arange(rows, dtype=np.int64) + shard * IDS_PER_SHARD
    if not np.array_equal(found["id"].to_numpy(), ids):
        wrong.append("ids")
    for column in (*TEXTS, "key"):
        if found[column].to_pylist() != _texts(metadata, column):
            wrong.append(column)
    for column in SIZES:
        if found[column].to_pylist() != [value or 0 for value in _values(metadata, column)]:
            wrong.append(column)
    similarity = np.array(
        [np.nan if v is None else v for v in _values(metadata, "similarity")], np.float64
    ).astype(np.float32)
    if not np.array_equal(found["similarity"].to_numpy(), similarity, equal_nan=True):
        wrong.append("similarity")
    for column, name in VECTORS.items():
        expected = np.load(source / name / f"{name}_{shard}.npy").astype(np.float32)
        if not np.array_equal(_matrix(found[column], rows), expected, equal_nan=True):
            wrong.append(column)
    return [f"shard {shard}: {column} differs from the source" for column in wrong]


def held_shards(clickhouse: ClickHouse, table: str, columns: str = EVERYTHING) -> dict[int, Seen]:
    """Return what each shard looks like to a reader now."""
    query = (
        f"SELECT shard, count(), uniqExact(id), sum(cityHash64({columns})) "
        f"FROM {table} GROUP BY shard"
    )
    return {int(s): (int(n), int(d), int(h)) for s, n, d, h in clickhouse.rows(query, 20)}


def left_tables(clickhouse: ClickHouse) -> list[str]:
    """Return tables of attempts and builds that are over.

    A table with a vector in its name is in use while a view is of its build.
    """
    query = (
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        r"AND match(name, '(_staging_\\d+_[0-9a-f]{8}|_search_[0-9a-f]{8}(_\\w+)?)$') "
        "AND extract(name, '_search_([0-9a-f]{8})_') NOT IN ("
        "SELECT JSONExtractString(comment, 'laion', 'build', 'build_id') FROM system.tables "
        "WHERE database = currentDatabase() AND position(comment, '\"search_of\"') > 0)"
    )
    return [row[0] for row in clickhouse.rows(query)]


def left_files(staging: Path) -> list[str]:
    """Return what lies in the staging area, but files that a run was asked to keep."""
    return sorted(
        str(path.relative_to(staging))
        for path in staging.rglob("*")
        if path.is_file()
        and path.relative_to(staging).parts[0] != "parquet"
        # A mark that a run has told that the ledger is down; it counts for an hour.
        and not path.name.startswith(".ledger-down-")
    )


def judge_ledger(clickhouse: ClickHouse, table: str) -> list[str]:
    """Return where the ledger's view and the base table contradict each other."""
    held = held_shards(clickhouse, table)
    query = (
        "SELECT shard, is_published, published_rows, published_hash FROM shard_status "
        f"WHERE database = currentDatabase() AND table = '{table}'"
    )
    told = {int(s): (int(p), int(n), int(h)) for s, p, n, h in clickhouse.rows(query)}
    wrong = [f"shard {shard}: held, and unknown to the ledger" for shard in held.keys() - told]
    for shard, (published, rows, digest) in told.items():
        seen = held.get(shard, (0, 0, 0))
        if published and (rows, digest) != (seen[0], seen[2]):
            wrong.append(f"shard {shard}: the ledger says {rows} rows, the table has {seen[0]}")
        if not published and seen[0]:
            wrong.append(f"shard {shard}: {seen[0]} rows that the ledger does not call published")
    return wrong


@dataclass
class Reader:
    """Reads the base table all the time, as a user would, and remembers what it saw; a context."""

    clickhouse: ClickHouse
    table: str
    columns: str = EVERYTHING
    every_s: float = READ_EVERY_S
    reads: int = 0
    seen: dict[int, list[Seen]] = field(default_factory=dict)
    vanished: list[int] = field(default_factory=list)

    def __enter__(self) -> Reader:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def judge(self, whole: Iterable[tuple[int, Seen]]) -> list[str]:
        """Return what a reader should never have seen; `whole` are the states that are right."""
        good = set(whole)
        wrong = [f"shard {shard} vanished from a reader's sight" for shard in self.vanished]
        for shard, states in self.seen.items():
            wrong += [
                f"a reader saw shard {shard} with {rows} rows and {ids} ids, which is no whole one"
                for rows, ids, digest in states
                if (shard, (rows, ids, digest)) not in good
            ]
        return wrong

    def _read(self) -> None:
        while not self._ended.wait(self.every_s):
            # The table may not be there yet, and the server may be down.
            with contextlib.suppress(OSError):
                now = held_shards(self.clickhouse, self.table, self.columns)
                self.reads += 1
                self.vanished += [s for s in self.seen if s not in now and s not in self.vanished]
                for shard, state in now.items():
                    states = self.seen.setdefault(shard, [])
                    if state not in states:
                        states.append(state)


def wait_for(condition: Any, timeout_s: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def _values(metadata: pa.Table, column: str) -> list[Any]:
    if column not in metadata.column_names:
        return [None] * len(metadata)
    return metadata[column].to_pylist()


def _texts(metadata: pa.Table, column: str) -> list[bytes]:
    return [b"" if value is None else str(value).encode() for value in _values(metadata, column)]


def _matrix(column: pa.ChunkedArray, rows: int) -> npt.NDArray[np.float32]:
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(rows, -1)
