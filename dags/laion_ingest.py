"""
# Load an embedding dataset into ClickHouse

Each shard goes through four tasks of its own, `ingest_shard`:

1. `download_shard` fetches two embedding files and the metadata and checks that they fit together.
   *Fails when* the source is down, lacks the file or delivers a broken one.
2. `convert_shard` writes one Parquet file and checks every vector.
   *Fails when* vectors are zero, not finite or not of unit length.
3. `load_shard` streams it into a staging table of its own.
   *Fails when* ClickHouse is down, full or busy.
4. `validate_shard` counts and hashes the staging table, then replaces the shard's partition of the
   base table in one step.
   *Fails when* a load was cut short; it is safe to clear `load_shard`.

Then `confirm_shards` fails the run unless the ledger shows every planned shard published,
`build_index` builds the table `<table>_search` with a vector index on both embeddings,
`check_index` checks it, and `report` lists what happened.

**Start** with dataset `sample`, or with `shards` = `0` of a real dataset before a range of it.

**When a shard fails**, the good ones are in. Read its log, mend the cause, and either clear the
failed tasks of this run (*Clear* → *Only failed*) or trigger a new run with `shards` = `failed` or
`missing`. Clearing any task again is safe: nothing is ever loaded twice or half.

**What happened** is in ClickHouse: `SELECT * FROM shard_status`.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import TriggerRule, dag, task, task_group

from laion.orchestration.defaults import SQL_DIRECTORY, Tag, Timeout, default_args
from laion.orchestration.params import ingest_params
from laion.settings import get_settings

SETTINGS = get_settings()
SHARD_LABEL = "{{ shard_key }}"


@dag(
    dag_id="laion_ingest",
    description="Download, convert, load and validate shards; then build the search table.",
    doc_md=__doc__,
    schedule=None,
    params=ingest_params(),
    default_args=default_args(),
    template_searchpath=SQL_DIRECTORY,
    tags=[Tag.LAION, Tag.INGEST],
)
def laion_ingest() -> None:
    @task(execution_timeout=Timeout.PLAN)
    def plan() -> list[dict[str, Any]]:
        from laion.orchestration import ingest

        return ingest.plan()

    @task(
        execution_timeout=Timeout.DOWNLOAD,
        map_index_template=SHARD_LABEL,
        max_active_tis_per_dag=SETTINGS.max_parallel_downloads,
    )
    def download_shard(spec: dict[str, Any]) -> dict[str, Any]:
        from laion.orchestration import ingest

        return ingest.download(spec)

    @task(
        execution_timeout=Timeout.CONVERT,
        map_index_template=SHARD_LABEL,
        max_active_tis_per_dag=SETTINGS.max_parallel_converts,
    )
    def convert_shard(files: dict[str, Any]) -> dict[str, Any]:
        from laion.orchestration import ingest

        return ingest.convert(files)

    @task(
        execution_timeout=Timeout.LOAD,
        map_index_template=SHARD_LABEL,
        max_active_tis_per_dag=SETTINGS.max_parallel_loads,
    )
    def load_shard(parquet: dict[str, Any]) -> dict[str, Any]:
        from laion.orchestration import ingest

        return ingest.load(parquet)

    @task(execution_timeout=Timeout.VALIDATE, map_index_template=SHARD_LABEL)
    def validate_shard(staged: dict[str, Any]) -> int:
        from laion.orchestration import ingest

        return ingest.validate(staged)

    @task_group
    def ingest_shard(spec: dict[str, Any]) -> None:
        validate_shard(load_shard(convert_shard(download_shard(spec))))

    @task(execution_timeout=Timeout.CONFIRM, trigger_rule=TriggerRule.ALL_DONE)
    def confirm_shards() -> dict[str, Any]:
        from laion.orchestration import ingest

        return ingest.confirm()

    @task(execution_timeout=Timeout.BUILD_INDEX)
    def build_index() -> dict[str, Any]:
        from laion.orchestration import ingest

        return ingest.build_index()

    check_index = SQLCheckOperator(
        task_id="check_index",
        conn_id=SETTINGS.clickhouse_conn_id,
        sql="check_search.sql",
        execution_timeout=Timeout.REPORT,
    )
    report = SQLExecuteQueryOperator(
        task_id="report",
        conn_id=SETTINGS.clickhouse_conn_id,
        sql="run_shards.sql",
        parameters={"dag_id": "{{ dag.dag_id }}", "run_id": "{{ run_id }}"},
        show_return_value_in_logs=True,
        trigger_rule=TriggerRule.NONE_FAILED,
        execution_timeout=Timeout.REPORT,
    )

    ingest_shard.expand(spec=plan()) >> confirm_shards() >> build_index() >> check_index >> report


laion_ingest()
