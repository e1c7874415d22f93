"""Builds the vector indexes of one partition inside the server, and watches it do so.

The server goes on building when the task that asked for it is killed; the next try waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.identifiers import quote_identifier, vector_suffix
from laion.clickhouse.search_table.kinds.kind import OnProgress
from laion.clickhouse.statements import statement
from laion.errors import IndexBuildFailed

log = logging.getLogger(__name__)

POLL_S = 0.1
MAX_POLL_S = 5.0
PROGRESS_EVERY_S = 30.0


@dataclass(frozen=True)
class Parts:
    """The parts of a partition: how many, of how many rows and bytes of index, and how many of them
    have no graph, so that a search reads them whole."""

    parts: int
    rows: int
    index_bytes: int
    unindexed: int

    @property
    def problem(self) -> str:
        """Why searches would not be quick; empty when there is one part with its graphs, or none.

        Each graph is searched, and a part without one is read whole.
        """
        if self.parts <= 1 and not self.unindexed:
            return ""
        return f"{self.parts} parts, {self.unindexed} without an index"


def index_name(vector: str) -> str:
    """Return the name of the index on a vector column, such as image_index."""
    return f"{vector_suffix(vector)}_index"


def build_graphs(
    client: Client,
    table: str,
    vectors: Sequence[str],
    bucket: int,
    on_progress: OnProgress,
) -> None:
    """Build the graphs of a partition, or wait for a build that is running already.

    `on_progress` is called every PROGRESS_EVERY_S with the share that is built, from 0 to 1.
    Raises IndexBuildFailed, ClickHouseError.
    """
    if not _mutations(client, table, bucket) and count_parts(client, table, bucket).unindexed:
        actions = (f"MATERIALIZE INDEX {index_name(v)} IN PARTITION {bucket}" for v in vectors)
        client.command(
            f"ALTER TABLE {quote_identifier(table)} {', '.join(actions)}",
            settings={"mutations_sync": 0},
        )
    poll_s, told, share = POLL_S, time.monotonic(), 0.0
    while running := _mutations(client, table, bucket):
        for mutation in running:
            if mutation.failure:
                _kill_mutation(client, table, mutation.mutation_id)
                raise IndexBuildFailed(
                    f"{table}: the index of bucket {bucket} cannot be built; the search table in "
                    f"use stays. ClickHouse says: {mutation.failure}"
                )
        if time.monotonic() - told >= PROGRESS_EVERY_S:
            told = time.monotonic()
            now, seconds = _read_progress(client, table, bucket)
            # Before its work has begun and once it is done, a build is not listed: that tells 0.
            share = max(share, now)
            log.info("Bucket %d: index %.0f %% built after %.0f s", bucket, 100 * share, seconds)
            on_progress(share)
        time.sleep(poll_s)
        poll_s = min(2 * poll_s, MAX_POLL_S)


def stop_building(client: Client, table: str, bucket: int) -> None:
    """End builds of the partition's indexes that still run in the server."""
    for mutation in _mutations(client, table, bucket):
        _kill_mutation(client, table, mutation.mutation_id)


def count_parts(client: Client, table: str, bucket: int) -> Parts:
    """Return what a partition of a search table consists of."""
    with typed_errors(f"count the parts of {table}"):
        found = client.query(
            statement("hnsw/parts", table=table), parameters={"table": table, "bucket": bucket}
        )
    return Parts(**next(iter(found.named_results())))


def _read_progress(client: Client, table: str, bucket: int) -> tuple[float, float]:
    """Return the share built, from 0 to 1, and for how many seconds."""
    (row,) = read_rows(client, "hnsw/progress", table=table, bucket=bucket)
    return row["share"], row["seconds"]


@dataclass(frozen=True)
class _Mutation:
    """An unfinished mutation of a partition, and why it failed, if it did."""

    mutation_id: str
    failure: str


def _mutations(client: Client, table: str, bucket: int) -> list[_Mutation]:
    rows = read_rows(client, "hnsw/mutations", table=table, bucket=bucket)
    return [_Mutation(**row) for row in rows]


def _kill_mutation(client: Client, table: str, mutation: str) -> None:
    client.command(
        "KILL MUTATION WHERE database = currentDatabase() AND table = {table:String} "
        "AND mutation_id = {mutation:String}",
        parameters={"table": table, "mutation": mutation},
    )
