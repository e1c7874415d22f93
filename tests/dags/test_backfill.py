"""`laion_backfill` without scheduler: what a dry run tells, on an Airflow that knows no run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from airflow.sdk import DAG
from clickhouse_connect.driver.client import Client

from tests.dags.conftest import AIRFLOW, DAGS, Run
from tests.embedded_server import EmbeddedServer
from tests.shard_files import write_little_shard


def test_a_dry_run_is_the_default_and_shards_are_claimed_one_run_after_another(
    laion_backfill: DAG,
) -> None:
    assert laion_backfill.params["dry_run"] is True
    assert laion_backfill.get_task("find_shards").max_active_tis_per_dag == 1


def test_nothing_is_triggered_unless_wanted(laion_backfill: DAG) -> None:
    ingest = laion_backfill.get_task("ingest")

    assert ingest.trigger_dag_id == "laion_ingest"
    assert "is_wanted" in ingest.upstream_task_ids


def test_a_dry_run_names_a_dropped_shard_and_triggers_nothing(
    run_dag: Run,
    airflow_home: Path,
    clickhouse_server: EmbeddedServer,
    client: Client,
    tmp_path: Path,
) -> None:
    for shard in (0, 1):
        write_little_shard(tmp_path, shard, 20)
    run_dag({"shards": "0-1", "source": tmp_path.as_uri(), "table": "damaged"})
    client.command("ALTER TABLE damaged DROP PARTITION 1")
    target = {**clickhouse_server.airflow_connection, "schema": client.database}

    done = subprocess.run(
        [AIRFLOW, "dags", "test", "laion_backfill", "--conf", '{"table": "damaged"}'],
        env={
            **os.environ,
            "AIRFLOW_HOME": str(airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(target),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    told = done.stdout + done.stderr
    assert "state=success" in done.stdout, told
    assert "its partition was dropped" in told
    assert "damaged: 1 load." in told
    assert f'"source": "{tmp_path.as_uri()}", ' in told
    assert "This was a dry run" in told
    assert client.query("SELECT count() FROM damaged WHERE shard = 1").result_rows == [(0,)]
