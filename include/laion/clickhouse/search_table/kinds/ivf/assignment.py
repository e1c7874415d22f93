"""Which list every row is in: computed on the worker, and kept per publication of a shard."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from laion.clickhouse.client import Client, insert_token, typed_errors
from laion.clickhouse.derived import drop_however_large
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.search_table.blocks import read_vectors
from laion.clickhouse.search_table.kinds.ivf.lists import InvertedLists
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement
from laion.shards import HeldShard

log = logging.getLogger(__name__)


def has_rows(client: Client, kept: str) -> bool:
    """Return whether any row is known to be in a list."""
    with typed_errors(f"read {kept}"):
        found = client.query(f"SELECT 1 FROM {quote_identifier(kept)} LIMIT 1")
    return bool(found.result_rows)


def unassigned(client: Client, kept: str, sources: Sequence[HeldShard]) -> list[HeldShard]:
    """Return the shards whose publication has no lists, or not all, in the table `kept`."""
    if not sources:
        return []
    with typed_errors(f"read which shards are in {kept}"):
        found = client.query(
            statement("ivf/assigned_shards", assigned=kept),
            parameters={"first": sources[0].shard, "last": sources[-1].shard},
        )
    whole = {row["shard"]: row["attempt"] for row in found.named_results() if row["is_whole"]}
    return [source for source in sources if whole.get(source.shard) != source.attempt]


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
    ids, own = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    for some, rows in read_vectors(client, table, vector, plan, (source.shard, source.shard)):
        units = rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        ids.append(some)
        own.append(lists.assign(units).astype(np.uint32))
    all_ids = np.concatenate(ids)
    count = len(all_ids)
    found = pa.table(
        {
            "shard": np.full(count, source.shard, np.uint16),
            "attempt": pa.repeat(source.attempt, count),
            "rows": np.full(count, count, np.uint32),
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
