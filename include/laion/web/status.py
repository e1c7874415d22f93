"""What stands beside the board: the search table, its recall, and the SQL functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laion.clickhouse.builds import BuildPlan
from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.publish import table_exists
from laion.clickhouse.shard_facts import shards_to_index
from laion.clickhouse.statements import statement

FUNCTIONS = ("encode_text", "encode_image")
VERSION = re.compile(r"laion_udf_([0-9a-f]{12})\.pyz")


@dataclass(frozen=True)
class Recall:
    """What searches of one column found with the chosen settings; times in milliseconds."""

    column: str
    kind: str
    recall_at_10: float
    recall_at_100: float
    ef: int
    multiplier: int
    ann_p50_ms: float
    exact_p50_ms: float
    target: float


@dataclass(frozen=True)
class SearchTable:
    """The search table in use, and the newest build if that is another one.

    `stale` are shards that were published again, or of which rows were deleted, since it was built;
    `bytes` is the size of its indexes.
    """

    build_id: str
    at_ms: int
    rows: int
    left_out: int
    bytes: int
    index: str
    buckets: int
    stale: list[int]
    recall: list[Recall]
    newer_state: str
    buckets_done: int
    buckets_planned: int


@dataclass(frozen=True)
class SqlFunction:
    """One of the SQL functions as ClickHouse sees it."""

    name: str
    version: str
    works: bool
    error: str


def read_search_table(client: Client, table: str) -> SearchTable | None:
    """Return what is known of a table's search table; None when none was ever planned."""
    if not table_exists(client, "search_builds"):
        return None
    builds = _rows(client, "search_table_builds", table=table)
    if not builds:
        return None
    newest = builds[0]
    published = next((build for build in builds if build[1] == "published"), None)
    in_work = _buckets(client, table, newest[0]) if newest is not published else []
    used = _buckets(client, table, published[0]) if published else []
    plan = BuildPlan.from_json(published[2]) if published else None
    sources = {tuple(source) for bucket in used for source in bucket[2]}
    return SearchTable(
        build_id=published[0] if published else "",
        at_ms=published[3] if published else 0,
        rows=sum(bucket[3] for bucket in used),
        left_out=sum(bucket[4] for bucket in used),
        bytes=sum(bucket[5] for bucket in used),
        index=f"HNSW, {plan.options.quantization}, {plan.options.metric}" if plan else "",
        buckets=len(used),
        stale=_stale(client, table, sources) if published else [],
        recall=_recall(client, table, published[0]) if published else [],
        newer_state=newest[1] if newest is not published else "",
        buckets_done=sum(bucket[0] in ("built", "attached") for bucket in in_work),
        buckets_planned=len(BuildPlan.from_json(newest[2]).buckets),
    )


def read_functions(client: Client) -> list[SqlFunction]:
    """Return the SQL functions that are deployed; none where the server does not tell."""
    with typed_errors("look for the SQL functions"):
        if not client.command(statement("has_function_status")):
            return []
    rows = _rows(client, "function_status", names=list(FUNCTIONS))
    return [
        SqlFunction(name, found[1] if (found := VERSION.search(command)) else "", works, error)
        for name, works, error, command in rows
    ]


def _buckets(client: Client, table: str, build_id: str) -> list[Sequence[Any]]:
    rows = _rows(client, "build_buckets", table=table, build_id=build_id)
    return [last for _, last in rows]


def _stale(client: Client, table: str, sources: set[tuple[int, str, int]]) -> list[int]:
    """Return the shards that are not as they were when the search table was filled from them."""
    return sorted({source[0] for source in sources ^ set(shards_to_index(client, table))})


def _recall(client: Client, table: str, build_id: str) -> list[Recall]:
    rows = _rows(client, "measured_recall", table=table, build_id=build_id)
    return [Recall(column, kind, *measured) for column, kind, measured in rows]


def _rows(client: Client, name: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    with typed_errors("read the state of the search table"):
        return client.query(statement(name), parameters=parameters).result_rows
