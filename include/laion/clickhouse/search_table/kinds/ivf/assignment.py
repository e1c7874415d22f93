"""Which list every row is in: computed on the worker, and kept per publication of a shard."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa

from laion.clickhouse.client import Client, insert_token, typed_errors
from laion.clickhouse.derived import drop_however_large
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.search_table.blocks import read_vectors
from laion.clickhouse.search_table.kinds.ivf.lists import InvertedLists
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement
from laion.shards import HeldShard, format_shards

log = logging.getLogger(__name__)

GROWTH = 10
"""So many times the share of the rows that a list had, and the mean of all lists: searches read it
for little."""
FARTHER = 1.25
"""Times the mean squared distance of a known shard: rows of one collection differ by less."""


def unassigned(client: Client, kept: str, sources: Sequence[HeldShard]) -> list[HeldShard]:
    """Return the shards whose rows have no lists, or not all, in the table `kept`.

    A publication may have had other rows when it was assigned: some were deleted, or came since.
    """
    if not sources:
        return []
    with typed_errors(f"read which shards are in {kept}"):
        found = client.query(
            statement("ivf/assigned_shards", assigned=kept),
            parameters={"first": sources[0].shard, "last": sources[-1].shard},
        )
    whole = {
        HeldShard(row["shard"], row["attempt"], row["held"])
        for row in found.named_results()
        if row["is_whole"]
    }
    return [source for source in sources if source not in whole]


def drift(client: Client, kept: str, known: Collection[HeldShard]) -> Iterator[str]:
    """Yield what rows that came later show of lists that were trained on the shards `known`.

    That is, which lists have grown out of proportion, and which shards are farther from all lists
    than any that was known.
    """
    if not known:
        return
    numbers = {"known": sorted(held.shard for held in known), "growth": GROWTH}
    names = {"known": [f"{one.shard} {one.attempt}" for one in known], "farther": FARTHER}
    with typed_errors(f"compare what is in {kept}"):
        grown = list(
            client.query(statement("ivf/grown", assigned=kept), parameters=numbers).named_results()
        )
        far = list(
            client.query(statement("ivf/far", assigned=kept), parameters=names).named_results()
        )
    if grown:
        largest = grown[0]
        yield (
            f"{len(grown)} lists have grown {GROWTH} times as fast as the table; list "
            f"{largest['list']} has {largest['held']:,} rows, {largest['times']:.0f} times the mean"
        )
    if far:
        shards = format_shards([row["shard"] for row in far])
        yield (
            f"rows of shards {shards} are farther from all lists, {far[0]['times']:.1f} times and "
            "more, than those of any shard that lists were trained on"
        )


def assign_shard(
    client: Client,
    table: str,
    vector: str,
    plan: BuildPlan,
    source: HeldShard,
    lists: InvertedLists,
    kept: str,
) -> None:
    """Put every row of a shard into a list, and write that to the table `kept`.

    The vectors come to the worker, and their lists go back: 12 bytes a row.
    """
    began = time.monotonic()
    ids, own, squares = [np.empty(0, np.int64)], [np.empty(0, np.uint32)], 0.0
    for some, rows in read_vectors(client, table, vector, plan, (source.shard, source.shard)):
        units = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        ids.append(some)
        placed, far = lists.place(units)
        own.append(placed.astype(np.uint32))
        squares += float(far.sum(dtype=np.float64))
    all_ids = np.concatenate(ids)
    count = len(all_ids)
    found = pa.table(
        {
            "shard": np.full(count, source.shard, np.uint16),
            "attempt": pa.repeat(source.attempt, count),
            "rows": np.full(count, count, np.uint32),
            "held": np.full(count, source.rows, np.uint32),
            "far": np.full(count, squares / max(1, count), np.float32),
            "id": all_ids,
            "list": np.concatenate(own),
        }
    )
    with typed_errors(f"write the lists of shard {source.shard} to {kept}"):
        drop_however_large(
            client, f"ALTER TABLE {quote_identifier(kept)} DROP PARTITION {source.shard}"
        )
        if count:
            client.insert_arrow(kept, found, settings=insert_token())
    log.info("%s: shard %d, %d rows, %.1f s", kept, source.shard, count, time.monotonic() - began)
