"""
# Check every night that what was loaded is still right

For every table that `laion_ingest` has loaded into, or the one named:

| check | finding |
| --- | --- |
| `counts` | shards that failed, are missing or hold another number of rows than were published |
| `runs` | the newest run should have ended long ago (`LAION_DEADLINE_HOURS`) |
| `hashes` | shards whose contents changed; a thirtieth of them each night |
| `index` | shards that changed since the search table was built |
| `recall` | the search table finds less than it was accepted for |
| `functions` | `encode_text` and `encode_image` do not work, or are of another model |
| `leftovers` | staging tables that nobody uses |
| `disks`, `staging` | less than a tenth of a disk free; files of dead attempts, which it removes |

The last line is checked once, not for each table. A worker that was killed, of which no task could
tell, is found by `counts`.

**Switch it on** in the list of DAGs: it is off until then. Each finding is one alert with the
command that mends it, every night until it is mended. Nothing of a table is changed.

**What it found**: `SELECT * FROM monitor_findings`. A finding does not fail the run; a failed run
means that ClickHouse could not be asked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task

from laion.orchestration.defaults import Tag, Timeout, default_args
from laion.orchestration.lazy import LaterModule
from laion.orchestration.params import monitor_params

monitor = LaterModule("laion.orchestration.monitor")


@dag(
    dag_id="laion_monitor",
    description="Compare tables with the ledger, measure recall, try the SQL functions; alert.",
    doc_md=__doc__,
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    is_paused_upon_creation=True,
    params=monitor_params(),
    default_args=default_args(),
    max_active_runs=1,
    tags=[Tag.LAION, Tag.OPERATIONS],
)
def laion_monitor() -> None:
    @task(execution_timeout=Timeout.PLAN)
    def check_machine() -> dict[str, int]:
        return monitor.check_machine()

    @task(execution_timeout=Timeout.PLAN)
    def list_tables() -> list[dict[str, Any]]:
        return monitor.list_tables()

    @task(
        execution_timeout=Timeout.MEASURE,
        map_index_template="{{ table_key }}",
        max_active_tis_per_dag=1,
    )
    def check_table(target: dict[str, Any]) -> dict[str, int]:
        return monitor.check_table(target)

    check_machine()
    check_table.expand(target=list_tables())


laion_monitor()
