"""What the board shows: one cell per shard, what has changed since, and a shard's history."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.ledger.shard_facts import held_rows
from laion.clickhouse.ledger.shard_state import ShardState, shard_state
from laion.clickhouse.schema import table_exists
from laion.datasets import Profile, load_profile, profile_names
from laion.errors import UnknownDataset

STATES = tuple(ShardState)
"""A cell names its state by the position here."""

OVERLAP_US = 2_000_000
"""How much later than its time an event may become visible."""
MAX_NAMED = 200
"""Shards that a query names; of more, all are counted. A URL must stay short."""
MAX_EVENTS = 500
"""Of a shard's history that are shown; the newest."""

Cell = list[int]
"""[shard, position in STATES, published at, rows held, bytes held, source bytes fetched, begun at],
times in seconds since 1970; zeros at the end are left out."""


@dataclass(frozen=True)
class TableChoice:
    """A table that the board can show, and the profile of its dataset."""

    table: str
    dataset: str


@dataclass(frozen=True)
class Changes:
    """Cells that may have changed, and the cursor to ask from next: the server's time, in µs."""

    cursor: int
    cells: list[Cell]


@dataclass(frozen=True)
class Board:
    """A table's shards. `rows_expected` is the whole dataset's, 0 where it is not known."""

    table: str
    dataset: str
    rows_expected: int
    changes: Changes


@dataclass
class Attempt:
    """One try at a shard: its stages in order, and how it ended."""

    attempt: str
    dag_id: str
    run_id: str
    stages: list[dict[str, Any]] = field(default_factory=list)


def read_tables(client: Client) -> list[TableChoice]:
    """Return the tables to choose from: those in the ledger, then datasets with known shards."""
    rows = _rows(client, "board_tables") if has_ledger(client) else []
    planned = [TableChoice(**row) for row in rows]
    taken = {choice.table for choice in planned}
    datasets = [name for name in profile_names() if load_profile(name).shards is not None]
    return planned + [TableChoice(name, name) for name in datasets if name not in taken]


def read_board(client: Client, choice: TableChoice, active_runs: Collection[str]) -> Board:
    """Return every shard of a table: those in the ledger and those its dataset lists."""
    profile = _profile_of(choice.dataset)
    listed = profile.all_shards() if profile and profile.shards is not None else []
    cells: dict[int, Cell] = {shard: [shard, 0] for shard in listed}
    changes = read_changes(client, choice, active_runs, since=0)
    cells |= {cell[0]: cell for cell in changes.cells}
    expected = sum((profile.rows_of(shard) or 0) if profile else 0 for shard in cells)
    return Board(
        table=choice.table,
        dataset=choice.dataset,
        rows_expected=expected,
        changes=Changes(changes.cursor, [cells[n] for n in sorted(cells)]),
    )


def read_changes(
    client: Client, choice: TableChoice, active_runs: Collection[str], since: int
) -> Changes:
    """Return the cells of shards with events after the cursor `since`; of all when it is 0."""
    if not since and not has_ledger(client):
        return Changes(0, [])
    # The server takes the time before it reads: what comes in between is sent twice.
    found = _rows(client, "board_shards", table=choice.table, since=since, overlap_us=OVERLAP_US)
    if not found:
        return Changes(since, [])
    held = _read_held(client, choice.table, [row["shard"] for row in found])
    profile = _profile_of(choice.dataset)
    nothing = Held(0, 0)
    cells = [_cell(row, held.get(row["shard"], nothing), profile, active_runs) for row in found]
    return Changes(found[0]["cursor"], cells)


def read_history(client: Client, table: str, shard: int) -> list[Attempt]:
    """Return the attempts at a shard, newest first; plans without an attempt are left out."""
    rows = _rows(client, "shard_history", table=table, shard=shard, limit=MAX_EVENTS)
    attempts: dict[str, Attempt] = {}
    for event in reversed(rows):
        # JSON's numbers are not exact beyond 2^53.
        event["hash"] = f"{event['hash']:016x}" if event["hash"] else ""
        name, dag_id, run_id = (event.pop(key) for key in ("attempt", "dag_id", "run_id"))
        if not name:
            continue
        attempt = attempts.setdefault(name, Attempt(name, dag_id, run_id))
        stages = attempt.stages
        if stages and stages[-1]["stage"] == event["stage"] and stages[-1]["state"] == "started":
            event["began_ms"] = stages.pop()["began_ms"]
        stages.append({"began_ms": event["at_ms"], **event})
    return list(reversed(attempts.values()))


def has_ledger(client: Client) -> bool:
    """Return whether anything was ever planned in this database."""
    return table_exists(client, "ingest_runs")


class Held(NamedTuple):
    """What a table holds of a shard."""

    rows: int
    bytes: int


def _read_held(client: Client, table: str, shards: Sequence[int]) -> dict[int, Held]:
    """Return what a table holds of these shards, and perhaps of others."""
    named = {"shards": list(shards)} if len(shards) <= MAX_NAMED else {}
    query = held_rows(client, table, "WHERE shard IN {shards:Array(UInt16)}" if named else "")
    with typed_errors(f"count the rows of {table}"):
        counts = client.query(query, parameters=named, settings={"log_queries": 0})
    sizes = {row["partition"]: row["bytes"] for row in _rows(client, "held_bytes", table=table)}
    return {
        row["shard"]: Held(row["held_rows"], sizes.get(str(row["shard"]), 0))
        for row in counts.named_results()
    }


def _cell(
    row: Mapping[str, Any], held: Held, profile: Profile | None, active_runs: Collection[str]
) -> Cell:
    state = shard_state(
        row["last_stage"],
        row["last_state"],
        held_rows=held.rows,
        published_rows=row["published_rows"] if row["is_published"] else None,
        listed_rows=profile.rows_of(row["shard"]) if profile else None,
        is_awaited=row["is_planned_again"] and row["planned_run_id"] in active_runs,
        is_active=row["last_run_id"] in active_runs,
    )
    times = row["published_at"], held.rows, held.bytes, row["bytes_here"], row["last_started_at"]
    cell = [row["shard"], STATES.index(state), *times]
    while cell[-1] == 0 and len(cell) > 2:
        cell.pop()
    return cell


def _profile_of(dataset: str) -> Profile | None:
    try:
        return load_profile(dataset)
    except UnknownDataset:
        # A profile that was renamed or belongs to another version of the package.
        return None


def _rows(client: Client, name: str, **parameters: Any) -> list[dict[str, Any]]:
    with typed_errors("read the ledger"):
        return read_rows(client, name, **parameters)
