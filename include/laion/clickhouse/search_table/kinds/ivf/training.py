"""Training inverted lists on a sample of the base table, and keeping them in ClickHouse."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from laion.clickhouse.client import Client, insert_token, typed_errors
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.search_table.blocks import read_blocks
from laion.clickhouse.search_table.kinds.ivf.lists import (
    InvertedLists,
    Vectors,
    sample_rows_for,
    train,
)
from laion.clickhouse.search_table.kinds.kind import indexable
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement
from laion.shards import ROWS_PER_SHARD_LIMIT, HeldShard

log = logging.getLogger(__name__)

SEED = 20_260_101
RANGE_ROWS = 512
"""Rows next to each other that are sampled together: ClickHouse reads thousands for each range."""
CHECKED_ROWS = 2_000
"""Of the sample, of which is counted how many are not in the nearest list."""


def train_lists(
    client: Client,
    table: str,
    vector: str,
    plan: BuildPlan,
    sources: Sequence[HeldShard],
    kept: str,
    assigned: str,
) -> None:
    """Train the lists of a vector and write them into the table `kept`, unless they are there.

    What the table `assigned` has is of other lists then, and is emptied. The same rows give the
    same lists. Takes about 2.4 GB of memory; up to 3.9 GB where many lists of few rows are wanted.
    """
    if read_lists(client, kept) is not None:
        return
    dimension = plan.vectors[vector]
    wanted = int(plan.options.parameters["lists"])
    sample = _sample(client, table, vector, plan, sources, sample_rows_for(wanted, dimension))
    if not len(sample):
        # Of no rows, the gate refuses the build.
        sample = np.zeros((1, dimension), np.float32)
    lists = train(sample, wanted, seed=SEED)
    checked = sample[:: max(1, len(sample) // CHECKED_ROWS)]
    log.info(
        "%s: %d lists in %d groups, trained on %d rows; %.1f %% of rows are not in the nearest",
        vector,
        len(lists),
        len(lists.groups),
        len(sample),
        100 * lists.share_not_nearest(checked),
    )
    with typed_errors(f"empty {assigned}"):
        client.command(f"TRUNCATE TABLE {quote_identifier(assigned)}")
    _write(client, kept, lists)


def read_lists(client: Client, kept: str) -> InvertedLists | None:
    """Return the lists in a table; None when they were not, or not wholly, written."""
    with typed_errors(f"read the lists in {kept}"):
        found = client.query_arrow(
            f"SELECT `group`, lists, centroid FROM {quote_identifier(kept)} ORDER BY list"
        )
    if not len(found) or len(found) != found["lists"][0].as_py():
        return None
    groups = found["group"].to_numpy()
    flat = found["centroid"].combine_chunks().flatten().to_numpy()
    starts = np.flatnonzero(np.diff(groups, prepend=-1)).tolist()
    return InvertedLists(
        flat.reshape(len(found), -1).astype(np.float32, copy=False),
        np.array([*starts, len(found)], np.int64),
    )


def _write(client: Client, kept: str, lists: InvertedLists) -> None:
    numbers = np.arange(len(lists), dtype=np.uint32)
    groups = np.searchsorted(lists.starts, numbers, side="right") - 1
    centroids = lists.centroids
    rows = pa.table(
        {
            "list": numbers,
            "group": groups.astype(np.uint32),
            "lists": np.full(len(lists), len(lists), np.uint32),
            "centroid": pa.FixedSizeListArray.from_arrays(centroids.ravel(), centroids.shape[1]),
        }
    )
    with typed_errors(f"write the lists to {kept}"):
        client.command(f"TRUNCATE TABLE {quote_identifier(kept)}")
        client.insert_arrow(kept, rows, settings=insert_token())


def _sample(
    client: Client,
    table: str,
    vector: str,
    plan: BuildPlan,
    sources: Sequence[HeldShard],
    wanted: int,
) -> Vectors:
    """Return about `wanted` rows of length 1, from every shard by its share of all rows."""
    total = sum(source.rows for source in sources)
    random = np.random.default_rng(SEED)
    parts: list[Vectors] = []
    for source in sources:
        share = wanted * source.rows / total
        parts += (
            rows
            for _, rows in read_blocks(
                client,
                statement(
                    "vectors_of_shards",
                    table=table,
                    column=vector,
                    literals={
                        "indexable": indexable(plan.vectors),
                        "ranges": _ranges(source, share, random),
                    },
                ),
                plan.vectors[vector],
                first=source.shard,
                last=source.shard,
            )
        )
    if not parts:
        return np.empty((0, plan.vectors[vector]), np.float32)
    sample: Vectors = np.concatenate(parts)
    parts.clear()
    sample /= np.sqrt(np.einsum("ij,ij->i", sample, sample))[:, None]
    return sample


def _ranges(source: HeldShard, wanted: float, random: np.random.Generator) -> str:
    """Return a condition of some ranges of a shard's ids; of all where most of it is wanted."""
    if 2 * wanted >= source.rows:
        return "true"
    first = source.shard * ROWS_PER_SHARD_LIMIT
    starts = random.integers(0, max(1, source.rows - RANGE_ROWS), math.ceil(wanted / RANGE_ROWS))
    ranges = (
        f"id BETWEEN {first + start} AND {first + start + RANGE_ROWS - 1}"
        for start in np.sort(starts).tolist()
    )
    return f"({' OR '.join(ranges)})"
