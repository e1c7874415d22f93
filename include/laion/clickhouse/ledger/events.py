"""Events of shards and runs: written, and read back as plain facts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from laion.clickhouse.client import Client, insert_rows, read_rows, typed_errors
from laion.clickhouse.ledger.shard_state import ShardState, Stage, StageState
from laion.errors import ClickHouseError

log = logging.getLogger(__name__)

MAX_ERROR_CHARS = 4000


@dataclass(frozen=True)
class TaskOrigin:
    """Which Airflow task instance an event comes from."""

    dag_id: str
    run_id: str
    try_number: int = 1
    map_index: int = -1
    log_url: str = ""


@dataclass(frozen=True)
class ShardEvent:
    """One row of the ledger; `Ledger.append` adds the server's time, the server its database."""

    table: str
    shard: int
    dataset: str
    origin: TaskOrigin
    stage: Stage
    state: StageState
    attempt: str = ""
    rows_expected: int = 0
    rows_loaded: int = 0
    bytes: int = 0
    seconds: float = 0.0
    hash: int = 0
    error_class: str = ""
    error: str = ""
    files: str = ""

    def as_row(self) -> dict[str, Any]:
        """Return the event as column values of shard_ledger."""
        own = {k: v for k, v in self.__dict__.items() if k != "origin"}
        stage_number = list(Stage).index(Stage(self.stage))
        return {**own, **self.origin.__dict__, "stage_number": stage_number}


@dataclass
class StageResult:
    """Filled in by the code inside `record_stage`; lands in the event that ends the stage."""

    rows_expected: int = 0
    rows_loaded: int = 0
    bytes: int = 0
    hash: int = 0
    files: str = ""


@dataclass(frozen=True)
class ShardOutcome:
    """A planned shard of a run and how it ended.

    `stage` is the last that the run began, and `stage_state` how far that is. It is published by
    this run, or, which is as good, by another one since it was planned.
    """

    shard: int
    is_published: bool
    is_published_by_run: bool
    stage: str
    stage_state: str
    rows_expected: int
    rows_loaded: int
    seconds: float
    error_class: str
    error: str
    log_url: str

    @property
    def state(self) -> str:
        """What people read of it."""
        if self.is_published:
            by_another = "" if self.is_published_by_run else " by another run"
            return f"{ShardState.VALIDATED}{by_another}"
        if self.stage == Stage.PLAN:
            return "not started"
        return f"{self.stage} {self.stage_state}"


@dataclass(frozen=True)
class Ledger:
    """The ledger in the client's database."""

    client: Client

    def append(self, events: list[ShardEvent]) -> None:
        """Write events of one table, as later ones than all before. Raises ClickHouseError."""
        (now,) = self.rows("next_event_time", table=events[0].table)
        self.insert("shard_ledger", [{**event.as_row(), "at": now["next_at"]} for event in events])

    @contextmanager
    def record_stage(self, start: ShardEvent) -> Iterator[StageResult]:
        """Write a `started` event, run the block, write `done` or `failed` with its seconds.

        The error of a failed block is recorded, where the ledger can be written, and goes on to
        the caller.
        """
        self.append([replace(start, state=StageState.STARTED)])
        began = time.monotonic()
        result = StageResult(rows_expected=start.rows_expected)
        try:
            yield result
        except Exception as error:
            failed = replace(
                start,
                state=StageState.FAILED,
                seconds=time.monotonic() - began,
                rows_expected=result.rows_expected,
                error_class=type(error).__name__,
                error=str(error)[:MAX_ERROR_CHARS],
            )
            try:
                self.append([failed])
            except ClickHouseError:
                log.exception("The ledger does not learn that %s failed.", start.stage)
            raise
        self.append(
            [
                replace(
                    start,
                    state=StageState.DONE,
                    seconds=time.monotonic() - began,
                    **result.__dict__,
                )
            ]
        )

    def record_run(
        self,
        origin: TaskOrigin,
        *,
        table: str,
        dataset: str,
        source: str,
        shards: str,
        params: dict[str, Any],
    ) -> None:
        """Write what a run was asked to do. `source` must carry no credentials."""
        row = {
            "dag_id": origin.dag_id,
            "run_id": origin.run_id,
            "table": table,
            "dataset": dataset,
            "source": source,
            "shards": shards,
            "params": json.dumps(params),
        }
        self.insert("ingest_runs", [row])

    def record_end(self, origin: TaskOrigin, *, table: str, planned: int, missing: int) -> None:
        """Write that the gate of a run has looked at its shards: no more tries are to come."""
        row = {
            "dag_id": origin.dag_id,
            "run_id": origin.run_id,
            "table": table,
            "planned": planned,
            "missing": missing,
        }
        self.insert("run_ends", [row])

    def frozen_shards(self, origin: TaskOrigin) -> str | None:
        """Return the shards that this run was planned with before, or None when it was not."""
        rows = self.rows("planned_shards", dag_id=origin.dag_id, run_id=origin.run_id)
        return rows[0]["shards"] if rows else None

    def published_shards(self, table: str) -> list[int]:
        """Return the shards that are in the base table."""
        return sorted(row["shard"] for row in self.rows("published_shards", table=table))

    def planned_shards(self, table: str) -> list[int]:
        """Return every shard that any run ever planned for the table."""
        return sorted(row["shard"] for row in self.rows("known_shards", table=table))

    def newer_publication(self, table: str, shard: int, attempt: str) -> tuple[str, str] | None:
        """Return (attempt, run_id) of a publication whose attempt started after this one."""
        rows = self.rows("newer_publication", table=table, shard=shard, attempt=attempt)
        return (rows[0]["attempt"], rows[0]["run_id"]) if rows else None

    def publication(self, table: str, shard: int, attempt: str) -> tuple[int, int] | None:
        """Return (rows, hash) with which an attempt was published, or None when it was not."""
        rows = self.rows("published_event", table=table, shard=shard, attempt=attempt)
        return (rows[0]["rows_loaded"], rows[0]["hash"]) if rows else None

    def attempts(self, event: ShardEvent) -> list[str]:
        """Return the attempts that the event's run has made at the event's shard, but its own."""
        rows = self.rows(
            "attempts_of_run",
            dag_id=event.origin.dag_id,
            run_id=event.origin.run_id,
            table=event.table,
            shard=event.shard,
        )
        return [row["attempt"] for row in rows if row["attempt"] != event.attempt]

    def are_moving(self, attempts: Sequence[str], quiet_s: int) -> bool:
        """Return whether a task is at work on one of these, or was less than `quiet_s` ago."""
        return bool(self.rows("moving_attempts", attempts=list(attempts), quiet_s=quiet_s))

    def last_files(self, table: str, shard: int) -> dict[str, dict[str, Any]]:
        """Return what the last download of a shard fetched, by role; nothing when none did."""
        rows = self.rows("last_files", table=table, shard=shard)
        found: dict[str, dict[str, Any]] = json.loads(rows[0]["newest_files"]) if rows else {}
        return found

    def run_outcomes(self, dag_id: str, run_id: str) -> list[ShardOutcome]:
        """Return how every shard planned by a run ended, by shard number."""
        return [
            ShardOutcome(**row) for row in self.rows("run_shards", dag_id=dag_id, run_id=run_id)
        ]

    def insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Write rows of equal columns into one of the ledger's tables. Raises ClickHouseError."""
        with typed_errors("write to the ledger"):
            insert_rows(self.client, table, rows)

    def rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return what the statement `sql/<name>.sql` finds, by name. Raises ClickHouseError."""
        with typed_errors("read the ledger"):
            return read_rows(self.client, name, **parameters)
