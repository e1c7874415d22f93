"""
# Load an embedding dataset into ClickHouse

`preflight` asks source, disks and ClickHouse whether the run can succeed, or fails with everything
that is in its way; the table is in its log. Then each shard goes through `ingest_shard`:

1. `download_shard` fetches its files. *Fails when* the source is down, lacks one, or one is broken.
2. `convert_shard` writes one Parquet file. *Fails when* vectors are bad or rows do not fit.
3. `load_shard` streams it to a staging table. *Fails when* ClickHouse is down, full or busy.
4. `validate_shard` counts and hashes that, then replaces the shard's partition of the base table.
   *Fails when* rows are missing there; the next try loads them again.

Then `confirm_shards` fails the run unless the ledger shows every planned shard published. Beside
the search table in use, `plan_index` sizes a new one against the server, `build_index` builds what
has changed bucket by bucket, `measure_recall` fails the run below `recall_target`, `publish_index`
puts it in place and `check_index` checks it. `deploy_udfs` makes the SQL functions `encode_text`
and `encode_image` work, or says why that cannot be. `report` lists what happened.

**Start** with dataset `sample`, or with `shards` = `0` of a real dataset before a range of it.

**When a shard fails**, the good ones are in. Read its log, mend the cause, and clear the failed
tasks (*Clear* → *Only failed*) or trigger a run with `shards` = `failed`: nothing is loaded twice.
A cleared task fetches and converts again what is not staged any more.
**What happened** is in ClickHouse: `SELECT * FROM shard_status`.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import TriggerRule, dag, task, task_group

from laion.orchestration.alerts import alert_if_late
from laion.orchestration.defaults import (
    SQL_DIRECTORY,
    Tag,
    Timeout,
    default_args,
    shard_task,
)
from laion.orchestration.lazy import LaterModule
from laion.orchestration.lineage import BASE_TABLE, FUNCTIONS, SEARCH_TABLE
from laion.orchestration.links import add_shard_links
from laion.orchestration.params import ingest_params
from laion.settings import get_settings

gate = LaterModule("laion.orchestration.gate")
planning = LaterModule("laion.orchestration.planning")
search_index = LaterModule("laion.orchestration.search_index")
shard_tasks = LaterModule("laion.orchestration.shard_tasks")
udfs = LaterModule("laion.orchestration.udfs")

SETTINGS = get_settings()


@dag(
    dag_id="laion_ingest",
    description="Download, convert, load and validate shards; then build the search table.",
    doc_md=__doc__,
    schedule=None,
    params=ingest_params(),
    default_args={**default_args(), "on_execute_callback": alert_if_late},
    template_searchpath=SQL_DIRECTORY,
    tags=[Tag.LAION, Tag.INGEST],
)
def laion_ingest() -> None:
    @task(execution_timeout=Timeout.PLAN)
    def plan() -> list[dict[str, Any]]:
        return planning.plan()

    @task(execution_timeout=Timeout.PLAN)
    def preflight(specs: list[dict[str, Any]]) -> list[dict[str, str]]:
        return planning.preflight(specs)

    @task(**shard_task(Timeout.DOWNLOAD, SETTINGS.max_parallel_downloads))
    def download_shard(spec: dict[str, Any]) -> dict[str, Any]:
        return shard_tasks.download(spec)

    @task(**shard_task(Timeout.CONVERT, SETTINGS.max_parallel_converts))
    def convert_shard(files: dict[str, Any]) -> dict[str, Any]:
        return shard_tasks.convert(files)

    @task(**shard_task(Timeout.LOAD, SETTINGS.max_parallel_loads))
    def load_shard(parquet: dict[str, Any]) -> dict[str, Any]:
        return shard_tasks.load(parquet)

    @task(**shard_task(Timeout.VALIDATE), outlets=[BASE_TABLE])
    def validate_shard(staged: dict[str, Any]) -> int:
        return shard_tasks.validate(staged)

    @task_group
    def ingest_shard(spec: dict[str, Any]) -> None:
        validate_shard(load_shard(convert_shard(download_shard(spec))))

    @task(
        execution_timeout=Timeout.CONFIRM, trigger_rule=TriggerRule.ALL_DONE, outlets=[BASE_TABLE]
    )
    def confirm_shards() -> dict[str, Any]:
        return gate.confirm()

    @task(execution_timeout=Timeout.CONFIRM)
    def plan_index() -> list[int]:
        return search_index.plan()

    @task(
        execution_timeout=Timeout.BUILD_INDEX,
        map_index_template="{{ bucket_key }}",
        max_active_tis_per_dag=SETTINGS.max_parallel_index_builds,
    )
    def build_index(bucket: int) -> dict[str, Any]:
        return search_index.build(bucket)

    @task(execution_timeout=Timeout.MEASURE, trigger_rule=TriggerRule.NONE_FAILED)
    def measure_recall() -> dict[str, float]:
        return search_index.measure()

    @task(execution_timeout=Timeout.CONFIRM, outlets=[SEARCH_TABLE])
    def publish_index() -> dict[str, Any]:
        return search_index.publish()

    check_index = SQLCheckOperator(
        task_id="check_index",
        conn_id=SETTINGS.clickhouse_conn_id,
        sql="{{ ti.xcom_pull(task_ids='publish_index')['check'] }}",
        execution_timeout=Timeout.REPORT,
    )

    @task(execution_timeout=Timeout.UDFS, trigger_rule=TriggerRule.NONE_FAILED, outlets=[FUNCTIONS])
    def deploy_udfs() -> dict[str, Any]:
        return udfs.deploy_udfs()

    report = SQLExecuteQueryOperator(
        task_id="report",
        conn_id=SETTINGS.clickhouse_conn_id,
        sql="run_shards.sql",
        parameters={"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"},
        show_return_value_in_logs=True,
        trigger_rule=TriggerRule.NONE_FAILED,
        execution_timeout=Timeout.REPORT,
    )

    specs, buckets = plan(), plan_index()
    preflight(specs) >> ingest_shard.expand(spec=specs) >> confirm_shards() >> buckets
    build_index.expand(bucket=buckets) >> measure_recall() >> publish_index() >> check_index
    check_index >> deploy_udfs() >> report


add_shard_links(laion_ingest())
