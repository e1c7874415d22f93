"""What is known of every shard of a table: the ledger's word beside what the table holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.ledger.shard_state import ShardState, Stage, StageState, shard_state
from laion.clickhouse.schema import table_exists
from laion.clickhouse.statements import statement
from laion.shards import HeldShard

RETRY_PATIENCE_S = 1200
"""Longer than a task waits before it is tried again."""


@dataclass(frozen=True)
class ShardFacts:
    """One shard. `held_rows` are in the base table, `published_rows` were published last.

    `is_known` is False for rows of a shard that no run ever planned. `quiet_s` is how long ago the
    shard's last event was, `run_quiet_s` the same of the run that wrote it. `awaited_by` is a later
    run that has planned the shard and not begun it, `awaited_quiet_s` when that was heard of last.
    """

    shard: int
    is_known: bool
    is_published: bool
    attempt: str
    published_rows: int
    published_run_id: str
    published_hash: int
    held_rows: int
    last_stage: str
    last_state: str
    error_class: str
    error: str
    run_id: str
    quiet_s: int
    has_run_ended: bool
    run_quiet_s: int
    awaited_by: str
    awaited_quiet_s: int

    @property
    def state(self) -> ShardState:
        """What the shard is, once no run is at work on it."""
        return shard_state(
            self.last_stage,
            self.last_state,
            held_rows=self.held_rows,
            published_rows=self.published_rows if self.is_published else None,
        )

    @property
    def last_failed(self) -> bool:
        return self.last_state == StageState.FAILED

    @property
    def is_held(self) -> bool:
        """Whether the shard was published and the table has rows of it."""
        return self.is_published and self.held_rows > 0

    @property
    def is_missing(self) -> bool:
        """Whether the table has nothing of it, also where that is because its load failed."""
        return self.is_known and not self.held_rows

    @property
    def is_mismatched(self) -> bool:
        """Whether the table has other rows than were published, also where a later load failed."""
        return self.held_rows > 0 and not (
            self.is_published and self.held_rows == self.published_rows
        )

    @property
    def is_finished(self) -> bool:
        """Whether the last attempt came to its end, in the base table or not."""
        return self.last_failed or self.last_stage == Stage.PUBLISH or not self.is_known

    @property
    def was_killed(self) -> bool:
        """Whether the last attempt is in the middle of a stage; once no run is at work on it."""
        return self.last_state == StageState.STARTED

    def worked_on_by(self, quiet_s: float) -> str:
        """Return the run that is at work on the shard, one that wrote something in `quiet_s`.

        Nothing when there is none.
        """
        if self.awaited_by and self.awaited_quiet_s <= quiet_s:
            return self.awaited_by
        return self.run_id if self._is_in_flight(quiet_s) else ""

    def _is_in_flight(self, quiet_s: float) -> bool:
        if self.has_run_ended or self.run_quiet_s > quiet_s:
            return False
        if self.last_failed:
            return self.quiet_s <= min(quiet_s, RETRY_PATIENCE_S)
        return not self.is_finished


@dataclass(frozen=True)
class LoadRun:
    """A run of `laion_ingest` as the ledger remembers it; `source` is without credentials."""

    dag_id: str
    run_id: str
    dataset: str
    source: str
    params: dict[str, Any]


def read_shard_facts(client: Client, table: str) -> list[ShardFacts]:
    """Return the facts of every shard that was ever planned or is in the table, by number."""
    query = statement("shard_facts", literals={"held": held_rows(client, table)})
    with typed_errors(f"compare table {table} with the ledger"):
        found = client.query(query, parameters={"table": table})
    return [ShardFacts(**row) for row in found.named_results()]


def failed_shards(client: Client, table: str, quiet_s: float) -> list[int]:
    """Return the shards whose last attempt failed, or was killed and no run is at work on them.

    That is a run which wrote something in the last `quiet_s`.
    """
    return [
        fact.shard
        for fact in read_shard_facts(client, table)
        if fact.state is ShardState.FAILED and (fact.last_failed or not fact.worked_on_by(quiet_s))
    ]


def shards_to_index(client: Client, table: str) -> list[HeldShard]:
    """Return every shard in the base table, by number."""
    query = statement("shards_to_index", literals={"held": held_rows(client, table)})
    with typed_errors(f"compare table {table} with the ledger"):
        found = client.query(query, parameters={"table": table}).named_results()
    return [HeldShard(row["shard"], row["attempt"], row["held_rows"]) for row in found]


def rows_by_shard(client: Client, table: str) -> dict[int, int]:
    """Return the rows of every shard that a base table holds; nothing when there is no table."""
    with typed_errors(f"count the rows of {table}"):
        found = client.query(held_rows(client, table)).named_results()
    return {row["shard"]: row["held_rows"] for row in found}


def held_rows(client: Client, table: str, which: str = "") -> str:
    """Return the statement that counts a base table's rows by shard, if there is a table.

    `which` is a WHERE clause that limits it to some shards.
    """
    if table_exists(client, table):
        return statement("held_rows", table=table, literals={"which": which})
    return statement("no_rows")


def last_load(client: Client, table: str) -> LoadRun | None:
    """Return the newest run that was to load shards into a table."""
    with typed_errors("read the ledger"):
        rows = read_rows(client, "last_load", table=table)
    if not rows:
        return None
    return LoadRun(**{**rows[0], "params": json.loads(rows[0]["params"])})
