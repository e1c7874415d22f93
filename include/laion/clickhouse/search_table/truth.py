"""What standing queries should find: exact answers, computed once for each bucket and kept."""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from laion.clickhouse.client import Client, insert_rows, read_rows
from laion.clickhouse.search_table.blocks import read_vectors
from laion.clickhouse.search_table.brute_force import ExactNearest
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.search_table.standing_queries import StandingQuery

log = logging.getLogger(__name__)

TRUTH_DEPTH = 128
"""Exact neighbours kept per query and bucket: 100, the excluded ones, and some for ties."""
TIE = 1e-6
"""Distances closer than this count as equal; float32 resolves about 1e-7 near 1."""
LEAST_QUERIES = 50
"""Of each kind that are asked, however large the table is."""
ROWS_A_QUERY = 100
"""More would only ask for the same rows again."""

Truth = list[tuple[float, int]]


def affordable_queries(builds: Builds, plan: BuildPlan, queries: int, budget: int) -> int:
    """Return how many queries of each kind can be answered exactly, of `queries` that are wanted.

    At least in the first bucket, and by two kinds of query for each vector; `budget` is in
    distances. Of small tables there are no more than one for ROWS_A_QUERY rows.
    """
    states = builds.buckets(plan.build_id)
    rows = max(1, states[plan.buckets[0]].rows)
    afforded = budget // (2 * len(plan.vectors) * rows)
    enough = sum(states[bucket].rows for bucket in plan.buckets) // ROWS_A_QUERY
    return min(queries, max(LEAST_QUERIES, min(afforded, enough)))


def choose_buckets(
    builds: Builds, plan: BuildPlan, queries: int, budget: int
) -> tuple[tuple[int, ...], float]:
    """Return the buckets to measure, as many as the budget allows, and their share of the rows."""
    states = builds.buckets(plan.build_id)
    total = sum(states[bucket].rows for bucket in plan.buckets)
    chosen: list[int] = []
    rows = 0
    for bucket in plan.buckets:
        if chosen and (rows + states[bucket].rows) * queries > budget:
            break
        chosen.append(bucket)
        rows += states[bucket].rows
    return tuple(chosen), rows / total if total else 1.0


def ground_truth(
    builds: Builds,
    plan: BuildPlan,
    column: str,
    queries: list[StandingQuery],
    buckets: tuple[int, ...],
) -> dict[int, Truth]:
    """Return the nearest rows of every query, computing only what is not known of a bucket."""
    states = builds.buckets(plan.build_id)
    made_by = {bucket: states[bucket].made_by for bucket in buckets}
    names = {"table": builds.table, "root": plan.root, "column": column}
    known = _read_truth(builds.client, names, made_by)
    numbers = {query.number for query in queries}
    for bucket in buckets:
        if numbers <= known.get(bucket, {}).keys():
            continue
        began = time.monotonic()
        nearest = _compute(builds, plan, column, queries, bucket)
        found = zip(queries, nearest, strict=True)
        rows = [
            {
                **names,
                "bucket": bucket,
                "made_by": made_by[bucket],
                "number": query.number,
                "ids": ids,
                "distances": distances,
            }
            for query, (ids, distances) in found
        ]
        insert_rows(builds.client, "recall_truth", rows)
        log.info(
            "%s: exact answers of bucket %d took %.1f s", column, bucket, time.monotonic() - began
        )
    known = _read_truth(builds.client, names, made_by)
    excluded = {query.number: set(query.excluded) for query in queries}
    return {
        number: sorted(
            pair
            for bucket in buckets
            for pair in known.get(bucket, {}).get(number, [])
            if pair[1] not in excluded[number]
        )
        for number in excluded
    }


def _compute(
    builds: Builds, plan: BuildPlan, column: str, queries: Sequence[StandingQuery], bucket: int
) -> list[tuple[list[int], list[float]]]:
    """Return ids and distances of the rows of a bucket that are nearest to each query.

    Of the base table's vectors: those that an index keeps may be coarser. Computed on the worker,
    by one matrix product for many rows and queries, which takes a fraction of what SQL would.
    """
    vectors = np.array([query.vector for query in queries], np.float32)
    nearest = ExactNearest(vectors, plan.options.metric, TRUTH_DEPTH)
    for ids, rows in read_vectors(
        builds.client, builds.table, column, plan, plan.shards_of(bucket)
    ):
        nearest.add(ids, rows)
    return nearest.result()


def _read_truth(
    client: Client, names: dict[str, str], made_by: dict[int, str]
) -> dict[int, dict[int, Truth]]:
    known: dict[int, dict[int, Truth]] = {}
    for row in read_rows(client, "read_truth", **names):
        bucket = row["bucket"]
        if made_by.get(bucket) == row["made_by"]:
            truth = list(zip(row["distances"], row["ids"], strict=True))
            known.setdefault(bucket, {})[row["number"]] = truth
    return known


def recall_of(
    found: Sequence[int], truth: Truth, k: int, look_up: Callable[[list[int]], dict[int, float]]
) -> float:
    """Return the share of the `k` nearest that was found; equally near rows are as good.

    `truth` is (distance, id), nearest first, at least `k` long unless the table is smaller.
    `look_up` returns exact distances; it is asked only when ties go on behind the truth's end.
    """
    wanted = min(k, len(truth))
    if not wanted:
        return 1.0
    limit = truth[wanted - 1][0] + TIE
    near = {row_id for distance, row_id in truth[: bisect_right(truth, (limit, 2**63))]}
    hits = sum(row_id in near for row_id in found[:k])
    unknown = [row_id for row_id in found[:k] if row_id not in near]
    if unknown and truth[-1][0] <= limit:
        hits += sum(distance <= limit for distance in look_up(unknown).values())
    return min(hits, wanted) / wanted
