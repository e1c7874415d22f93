"""Which of many failures sends the alert: settled through rows in ClickHouse, without a centre.

Every task that failed for good writes a row and waits until those of others must be visible. The
first row of a cause, by (time, id), sends one alert for all; later ones stay silent.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from laion.clickhouse.ledger import Ledger


class AlertState(StrEnum):
    """What an event is about: a task that failed, a run that is late, a shard that recovered."""

    FAILED = "failed"
    LATE = "late"
    RECOVERED = "recovered"


EVENT_BYTES = 8
CAUSE_DIGITS = 16


@dataclass(frozen=True)
class Failure:
    """A task instance that failed for good. `shard` is -1 for a task that is of no shard."""

    table: str
    dataset: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    tries: int
    shard: int
    error_class: str
    error: str
    log_url: str

    @property
    def cause(self) -> str:
        """What failures of one kind have in common: their error without numbers and names."""
        return cause_of(self.error_class, self.error)


@dataclass(frozen=True)
class Storm:
    """The failures of one cause so far. Row counts are sums over the shards."""

    failure: Failure
    shards: tuple[int, ...]
    failures: int
    rows_expected: int
    rows_loaded: int


def cause_of(error_class: str, error: str) -> str:
    """Return the same for errors of different shards that have one cause."""
    text = without_numbers(error.lower())
    # What follows the host of a URL, and directories, differ from shard to shard.
    text = re.sub(r"(?<=[a-z0-9#])/\S*", "/", re.sub(r"://", ":", text))
    return hashlib.sha256(f"{error_class}\n{text}".encode()).hexdigest()[:CAUSE_DIGITS]


def without_numbers(text: str) -> str:
    """Return what texts about different shards, runs and times have in common."""
    return re.sub(r"[0-9a-f]{8,}|\d[\d,]*", "#", text)


def report_failure(ledger: Ledger, failure: Failure, settle_s: float) -> Storm | None:
    """Record a failure; return what to send an alert about, or None when another one sends it.

    Takes `settle_s` seconds for the first of a cause. Raises ClickHouseError.
    """
    run = {"dag_id": failure.dag_id, "run_id": failure.run_id}
    rounds = ledger.rows(
        "alert_round", **run, task_id=failure.task_id, map_index=failure.map_index
    )[0]["round"]
    event_id = secrets.token_hex(EVENT_BYTES)
    facts = {"cause": failure.cause, "round": rounds}
    row = {**failure.__dict__, **facts, "event_id": event_id, "state": AlertState.FAILED}
    ledger.insert("alert_events", [row])
    for wait_s in (0.0, settle_s):
        time.sleep(wait_s)
        storm = ledger.rows("alert_storm", **run, **facts)
        if storm[0]["event_id"] != event_id:
            return None
    return Storm(
        failure=failure,
        shards=tuple(sorted({row["shard"] for row in storm if row["shard"] >= 0})),
        failures=len(storm),
        rows_expected=sum(row["rows_expected"] for row in storm),
        rows_loaded=sum(row["rows_loaded"] for row in storm),
    )


def claim_late_run(ledger: Ledger, run: Failure, settle_s: float) -> bool:
    """Return whether the caller is the one who tells that a run is late; one is, once a run.

    Takes `settle_s` seconds for those who may be. Raises ClickHouseError.
    """
    origin = {"dag_id": run.dag_id, "run_id": run.run_id}
    if ledger.rows("late_run", **origin):
        return False
    event_id = secrets.token_hex(EVENT_BYTES)
    row = {**run.__dict__, "event_id": event_id, "state": AlertState.LATE}
    ledger.insert("alert_events", [row])
    time.sleep(settle_s)
    return bool(ledger.rows("late_run", **origin)[0]["event_id"] == event_id)


def take_recovered(ledger: Ledger, table: str, dataset: str) -> Sequence[int]:
    """Return the shards that failed, were told about, and are published now; each once."""
    shards = [row["shard"] for row in ledger.rows("recovered_shards", table=table)]
    if shards:
        ledger.insert(
            "alert_events",
            [
                {"table": table, "dataset": dataset, "shard": shard, "state": AlertState.RECOVERED}
                for shard in shards
            ],
        )
    return shards
