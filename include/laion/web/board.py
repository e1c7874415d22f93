"""What the board shows: one cell per shard, what has changed since, and a shard's history."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.publish import table_exists
from laion.clickhouse.shard_facts import held_rows
from laion.clickhouse.statements import statement
from laion.datasets import Profile, load_profile, profile_names
from laion.errors import UnknownDataset

STATES = (
    "unplanned",
    "queued",
    "downloading",
    "converting",
    "loading",
    "validated",
    "failed",
    "mismatched",
)
"""In the order of a shard's way; a cell names its state by the position here."""
IN_WORK = frozenset({"queued", "downloading", "converting", "loading"})
"""The states of a shard that an active run takes care of."""

OVERLAP_US = 2_000_000
"""How much later than its time an event may become visible."""
MAX_NAMED = 200
"""Shards that a query names; of more, all are counted. A URL must stay short."""
MAX_EVENTS = 500
"""Of a shard's history that are shown; the newest."""

_STATE_OF_STAGE = {
    "download": "downloading",
    "convert": "converting",
    "load": "loading",
    "validate": "loading",
    "publish": "loading",
}

_EVENT_COLUMNS = (
    *("attempt", "stage", "state", "rows_expected", "rows_loaded", "bytes", "seconds", "hash"),
    *("error_class", "error", "dag_id", "run_id", "try_number", "map_index", "log_url", "at_ms"),
)

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
    planned = [TableChoice(table, dataset) for table, dataset in rows]
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
    published = [row[1] for row in found if row[2]]
    held = _read_held(client, choice.table, published) if published else {}
    profile = _profile_of(choice.dataset)
    cells = [_cell(row, held.get(row[1], (0, 0)), profile, active_runs) for row in found]
    return Changes(found[0][0], cells)


def read_history(client: Client, table: str, shard: int) -> list[Attempt]:
    """Return the attempts at a shard, newest first; plans without an attempt are left out."""
    rows = _rows(client, "shard_history", table=table, shard=shard, limit=MAX_EVENTS)
    attempts: dict[str, Attempt] = {}
    for row in reversed(rows):
        event = dict(zip(_EVENT_COLUMNS, row, strict=True))
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


def _read_held(client: Client, table: str, shards: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return the (rows, bytes) that a table holds of these shards, and perhaps of others."""
    named = {"shards": list(shards)} if len(shards) <= MAX_NAMED else {}
    query = held_rows(client, table, "WHERE shard IN {shards:Array(UInt16)}" if named else "")
    with typed_errors(f"count the rows of {table}"):
        counts = client.query(query, parameters=named, settings={"log_queries": 0}).result_rows
    sizes = {row[0]: row[1] for row in _rows(client, "held_bytes", table=table)}
    return {shard: (rows, sizes.get(str(shard), 0)) for shard, rows in counts}


def _cell(
    row: Sequence[Any],
    held: tuple[int, int],
    profile: Profile | None,
    active_runs: Collection[str],
) -> Cell:
    _, shard, published, published_rows, published_at, last, begun_at, *plan, fetched = row
    stage, state, run_id, _ = last
    is_planned_again, planner = plan
    held_rows, held_bytes = held
    listed = profile.rows_of(shard) if profile else None
    if is_planned_again and planner in active_runs:
        name = "queued"
    elif state == "failed":
        name = "failed"
    elif stage == "plan":
        name = "queued" if run_id in active_runs else "unplanned"
    elif (stage, state) != ("publish", "done") and run_id in active_runs:
        name = _STATE_OF_STAGE[stage]
    elif published:
        is_right = held_rows == published_rows and listed in (None, published_rows)
        name = "validated" if is_right else "mismatched"
    else:
        # Its run ended without a word about it: a worker was killed.
        name = "failed"
    cell = [shard, STATES.index(name), published_at, held_rows, held_bytes, fetched, begun_at]
    while cell[-1] == 0 and len(cell) > 2:
        cell.pop()
    return cell


def _profile_of(dataset: str) -> Profile | None:
    try:
        return load_profile(dataset)
    except UnknownDataset:
        # A profile that was renamed or belongs to another version of the package.
        return None


def _rows(client: Client, name: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    with typed_errors("read the ledger"):
        return client.query(statement(name), parameters=parameters).result_rows
