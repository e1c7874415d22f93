"""What attempts that are over have left in the staging area and in ClickHouse.

A task that fails clears up after itself; one that is killed for the last time cannot.
"""

from __future__ import annotations

import logging

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError

from laion.clickhouse.derived import drop_derived
from laion.clickhouse.identifiers import staging_table
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.shards import shard_label
from laion.storage import StagingArea

log = logging.getLogger(__name__)

ENDED = ("success", "failed")

UNKNOWN_FOR_S = 120
"""A download takes a place and says so in the ledger at once; this long after, it was killed."""


def discard_attempt(
    ledger: Ledger, area: StagingArea, table: str, shard: int, attempt: str
) -> None:
    """Delete the staging directory of an attempt, which frees its place, and its staging table."""
    area.release(table, shard, attempt)
    drop_derived(ledger.client, staging_table(table, shard, attempt))


def discard_run(ledger: Ledger, area: StagingArea, origin: TaskOrigin, table: str) -> None:
    """Discard what is left of a run's attempts; none of its shards' tasks may run any more."""
    staged = {row["name"] for row in ledger.rows("leftover_tables", table=table, older_s=0)}
    places = area.attempts()
    run = {"dag_id": origin.dag_id, "run_id": origin.run_id}
    for row in ledger.rows("run_attempts", table=table, **run):
        shard, attempt = row["shard"], row["attempt"]
        is_staged = staging_table(table, shard, attempt) in staged
        if is_staged or (table, shard, attempt) in places:
            log.warning("%s: discarding what a killed task has left.", shard_label(shard))
            discard_attempt(ledger, area, table, shard, attempt)


def free_places(ledger: Ledger, area: StagingArea) -> list[str]:
    """Discard what no task will use any more in the staging area; return a line about each.

    That are the attempts of runs that have ended, as a run does that was marked failed, those that
    never came to a word in the ledger and, where this Airflow does not know the run, those that
    nobody has touched for hours.
    """
    states: dict[tuple[str, str], str] = {}
    freed, known, in_use = [], [], []
    for table, shard, attempt in area.attempts():
        for row in ledger.rows("run_of_attempt", table=table, attempt=attempt):
            known.append(attempt)
            run = row["dag_id"], row["run_id"]
            if run not in states:
                states[run] = _run_state(*run)
            if states[run] in ENDED:
                discard_attempt(ledger, area, table, shard, attempt)
                freed.append(f"{shard_label(shard)} of {table}: run {run[1]} is over")
            elif states[run]:
                in_use.append(attempt)
    never_begun = area.sweep(keep=known, untouched_s=UNKNOWN_FOR_S)
    stale = area.sweep(keep=in_use)
    return [
        *freed,
        *(f"{place}: the ledger does not know it" for place in never_begun),
        *(f"{place}: nobody has touched it for hours" for place in stale),
    ]


def _run_state(dag_id: str, run_id: str) -> str:
    """Return the state of a run; '' when this Airflow does not know it."""
    try:
        # An enum that is a str, but whose str() is 'DagRunState.FAILED'.
        state: str = get_current_context()["task_instance"].get_dagrun_state(dag_id, run_id)
        return state
    except AirflowRuntimeError:
        return ""
