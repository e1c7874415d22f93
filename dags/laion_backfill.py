"""
# Find shards that are not right and load them again

Compares the ledger with what the table holds, says which shards need work and why, and, unless
this is a dry run, triggers `laion_ingest` for exactly these and waits for it. Dataset, source and
all choices are those of the last run that loaded into the table; they come from ClickHouse, so
this also works when that run was deleted from Airflow.

| which | shards |
| --- | --- |
| `failed` | whose last attempt failed, or was broken off while an earlier publication is in |
| `missing` | that were planned, or are in the dataset's manifest, and are not in the table |
| `mismatched` | of which the table holds another number of rows than were published |
| `stale` | that changed since the search table was built; only their part of it is built again |
| `all` | all of these, but none of the manifest that nobody has asked for yet |

A shard is missing when its load never began, was broken off (a killed worker), or when somebody
dropped its partition. `shards` names shards instead of `which`. A shard that a run is at work on is
left alone, and a table is repaired by one backfill at a time: another one finds nothing to do.

**Start** with a dry run (the default) and read the log of `find_shards`.

**When it fails**, `laion_ingest` did: its alert, and the run that `ingest` links to, say why. Start
another dry run to see what is left.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task

from laion.backfill import RUN_PREFIX
from laion.orchestration.defaults import Tag, Timeout, default_args
from laion.orchestration.lazy import LaterModule
from laion.orchestration.params import backfill_params

backfill = LaterModule("laion.orchestration.backfill")

POLL_S = 15


@dag(
    dag_id="laion_backfill",
    description="Find shards that failed, are missing or damaged, and load them again.",
    doc_md=__doc__,
    schedule=None,
    params=backfill_params(),
    default_args=default_args(),
    tags=[Tag.LAION, Tag.OPERATIONS],
)
def laion_backfill() -> None:
    # One at a time, so that two runs cannot claim the same shards.
    @task(execution_timeout=Timeout.PLAN, max_active_tis_per_dag=1)
    def find_shards() -> dict[str, Any]:
        return backfill.find_shards()

    @task.short_circuit(execution_timeout=Timeout.PLAN)
    def is_wanted(conf: dict[str, Any]) -> bool:
        return backfill.is_wanted(conf)

    conf = find_shards()
    ingest = TriggerDagRunOperator(
        task_id="ingest",
        trigger_dag_id="laion_ingest",
        trigger_run_id=f"{RUN_PREFIX}{{{{ run_id }}}}",
        conf=conf,
        # Cleared, the same run loads the same shards once more.
        reset_dag_run=True,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=POLL_S,
        execution_timeout=Timeout.REPAIR,
    )
    is_wanted(conf) >> ingest


laion_backfill()
