"""`laion_monitor` without scheduler, on a table damaged behind its back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from airflow.sdk import DAG
from clickhouse_connect.driver.client import Client

from tests.dags.conftest import AIRFLOW, DAGS, Run
from tests.embedded_server import EmbeddedServer
from tests.receivers import WebHook
from tests.shard_files import write_little_shard


def test_it_is_off_until_enabled_and_then_daily(laion_monitor: DAG) -> None:
    assert laion_monitor.is_paused_upon_creation
    assert laion_monitor.schedule == "@daily"
    assert not laion_monitor.catchup


def test_each_finding_is_one_row_and_one_alert(
    run_dag: Run,
    airflow_home: Path,
    clickhouse_server: EmbeddedServer,
    client: Client,
    tmp_path: Path,
) -> None:
    for shard in (0, 1, 2):
        write_little_shard(tmp_path, shard, 20)
    run_dag({"shards": "0-2", "source": tmp_path.as_uri(), "table": "damaged"})
    client.command("ALTER TABLE damaged DROP PARTITION 1")
    client.command("INSERT INTO damaged SELECT * FROM damaged WHERE shard = 2 LIMIT 3")
    target = {**clickhouse_server.airflow_connection, "schema": client.database}

    with WebHook() as hook:
        alerts = {"conn_type": "apprise", "extra": {"config": {"path": hook.url}}}
        done = subprocess.run(
            [AIRFLOW, "dags", "test", "laion_monitor"],
            env={
                **os.environ,
                "AIRFLOW_HOME": str(airflow_home),
                "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
                "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(target),
                "AIRFLOW_CONN_LAION_ALERTS": json.dumps(alerts),
                "LAION_STAGING_URI": (tmp_path / "staging").as_uri(),
            },
            capture_output=True,
            text=True,
            check=False,
        )

    assert "state=success" in done.stdout, done.stdout + done.stderr
    found = client.query(
        "SELECT check, summary FROM monitor_findings WHERE state = 'found' ORDER BY at, summary"
    ).result_rows
    about_counts = [summary for check, summary in found if check == "counts"]
    assert [text.split(":")[0] for text in about_counts] == [
        "shards 1 are missing",
        "shards 2 are mismatched",
    ]
    assert len(hook.messages) == len(found)
    (mismatched,) = hook.about("mismatched")
    assert mismatched["title"].startswith("damaged: shards 2 are mismatched: run ")
    assert "docs/operations.md#monitor-finding-counts" in mismatched["message"]
    states = client.query("SELECT table, check, state FROM monitor_findings").result_rows
    assert ("damaged", "recall", "skipped") in states
    assert ("damaged", "leftovers", "ok") in states
    assert [state for state in states if state[1] == "disks"] == [("", "disks", "ok")]
