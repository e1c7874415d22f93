"""What a backfill from the board would do: the dry run that is shown before anything starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from laion.backfill import (
    Action,
    BackfillRequest,
    Reason,
    ShardRepair,
    ingest_conf,
    plan_backfill,
)
from laion.clickhouse.client import Client
from laion.clickhouse.ledger.shard_state import IN_WORK
from laion.shards import MAX_SHARD, parse_shards
from laion.web.board import STATES, TableChoice, read_changes


@dataclass(frozen=True)
class DryRun:
    """What would be done to each shard, and what `laion_ingest` would be triggered with, if at all.

    A shard that a run is at work on is left to it, so `conf` may name fewer shards.
    """

    repairs: list[ShardRepair]
    conf: dict[str, Any] | None


def plan_repair(client: Client, table: str, shards: str, active_runs: Collection[str]) -> DryRun:
    """Return the dry run of loading the named shards again; changes nothing.

    Raises BadShards, BadRequest, NeverLoaded, TableMismatch, ClickHouseError.
    """
    wanted = parse_shards(shards)
    # Airflow is asked which runs are active, so none need be taken for active by its last sign.
    named = BackfillRequest(table, shards=shards, max_shards=len(wanted), quiet_s=-1)
    everything = BackfillRequest(table, which="all", max_shards=MAX_SHARD + 1, quiet_s=-1)
    damaged = {repair.shard: repair for repair in plan_backfill(client, everything)}
    cells = read_changes(client, TableChoice(table, ""), active_runs, since=0).cells
    in_work = {cell[0] for cell in cells if STATES[cell[1]] in IN_WORK}
    repairs = [
        _judge(repair, damaged.get(repair.shard), repair.shard in in_work)
        for repair in plan_backfill(client, named)
    ]
    return DryRun(repairs, ingest_conf(client, named, repairs))


def _judge(named: ShardRepair, damage: ShardRepair | None, is_in_work: bool) -> ShardRepair:
    """Return why a named shard needs loading, if it does, or that a run is at work on it."""
    if is_in_work:
        return replace(named, action=Action.WAIT, why="a run is at work on it")
    if damage is not None and damage.reason is not Reason.STALE:
        return replace(damage, action=Action.LOAD)
    if named.rows_held:
        return replace(named, why="it is in, and would be loaded again in its place")
    return replace(named, why="no run has loaded it yet")
