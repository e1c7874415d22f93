"""What stands beside the board: the search table, its recall, and the SQL functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.ledger.shard_facts import shards_to_index
from laion.clickhouse.schema import table_exists
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.plan import BucketStage, BuildPlan, BuildState
from laion.clickhouse.search_table.profiles import read_knobs
from laion.clickhouse.statements import statement
from laion.shards import HeldShard

FUNCTIONS = ("encode_text", "encode_image")
VERSION = re.compile(r"laion_udf_([0-9a-f]{12})\.pyz")


@dataclass(frozen=True)
class Recall:
    """What searches of one column found, how thorough they are; times in milliseconds."""

    column: str
    kind: str
    recall_at_10: float
    recall_at_100: float
    profile: str
    ann_p50_ms: float
    exact_p50_ms: float
    target: float


@dataclass(frozen=True)
class SearchTable:
    """The search table in use, and the newest build if that is another one.

    `stale` are shards that were published again, or of which rows were deleted, since it was built;
    `bytes` is the size of its indexes; `chosen` says how `auto` chose the kind.
    """

    build_id: str
    at_ms: int
    rows: int
    left_out: int
    bytes: int
    index: str
    chosen: str
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
    published = next(
        (build for build in builds if build["last_state"] == BuildState.PUBLISHED), None
    )
    if published is None:
        plan, used = None, []
    else:
        plan = BuildPlan.from_json(published["newest_plan"])
        used = _buckets(client, table, published["build_id"])
    in_work = _buckets(client, table, newest["build_id"]) if newest is not published else []
    sources = {HeldShard(*held) for bucket in used for held in bucket["shards"]}
    rows = sum(bucket["rows"] for bucket in used)
    if plan and (kind := kind_of(plan.options)).is_live:
        name = kind.table_of(kind.place(table, plan, in_use=True), next(iter(plan.vectors)))
        rows = int(str(client.command(f"SELECT count() FROM {quote_identifier(name)}")))
    return SearchTable(
        build_id=published["build_id"] if published else "",
        at_ms=published["at_ms"] if published else 0,
        rows=rows,
        left_out=sum(bucket["left_out"] for bucket in used),
        bytes=sum(bucket["index_bytes"] for bucket in used),
        index=kind_of(plan.options).describe(plan.options) if plan else "",
        chosen=plan.chosen if plan else "",
        buckets=len(used),
        stale=_stale(client, table, sources) if plan and not kind_of(plan.options).is_live else [],
        recall=_recall(client, table, plan) if plan else [],
        newer_state=newest["last_state"] if newest is not published else "",
        buckets_done=sum(
            bucket["state"] in (BucketStage.BUILT, BucketStage.ATTACHED) for bucket in in_work
        ),
        buckets_planned=len(BuildPlan.from_json(newest["newest_plan"]).buckets),
    )


def read_functions(client: Client) -> list[SqlFunction]:
    """Return the SQL functions that are deployed; none where the server does not tell."""
    with typed_errors("look for the SQL functions"):
        if not client.command(statement("has_function_status")):
            return []
    rows = _rows(client, "function_status", names=list(FUNCTIONS))
    return [
        SqlFunction(
            name=row["name"],
            version=found[1] if (found := VERSION.search(row["command"])) else "",
            works=row["works"],
            error=row["error"],
        )
        for row in rows
    ]


def _buckets(client: Client, table: str, build_id: str) -> list[dict[str, Any]]:
    return _rows(client, "build_buckets", table=table, build_id=build_id)


def _stale(client: Client, table: str, sources: set[HeldShard]) -> list[int]:
    """Return the shards that are not as they were when the search table was filled from them."""
    return sorted({source.shard for source in sources ^ set(shards_to_index(client, table))})


def _recall(client: Client, table: str, plan: BuildPlan) -> list[Recall]:
    rows = _rows(client, "measured_recall", table=table, build_id=plan.build_id)
    kind = kind_of(plan.options)
    return [
        Recall(
            column=row["column"],
            kind=row["kind"],
            recall_at_10=row["recall_at_10"],
            recall_at_100=row["recall_at_100"],
            profile=str(kind.read_profile(read_knobs(row))),
            ann_p50_ms=row["ann_p50_ms"],
            exact_p50_ms=row["exact_p50_ms"],
            target=row["target"],
        )
        for row in rows
    ]


def _rows(client: Client, name: str, **parameters: Any) -> list[dict[str, Any]]:
    with typed_errors("read the state of the search table"):
        return read_rows(client, name, **parameters)
