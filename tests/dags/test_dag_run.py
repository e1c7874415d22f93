"""Whole runs without scheduler or UI: `airflow dags test` on an empty Airflow home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from tests.embedded_server import EmbeddedServer
from tests.shard_files import write_little_shard

AIRFLOW = str(Path(sys.executable).parent / "airflow")
DAGS = str(Path(__file__).parents[2] / "dags")

Run = Callable[[dict[str, object]], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("airflow")
    subprocess.run(
        [AIRFLOW, "db", "migrate"],
        env={**os.environ, "AIRFLOW_HOME": str(home)},
        check=True,
        capture_output=True,
    )
    return home


@pytest.fixture
def run_dag(airflow_home: Path, clickhouse_server: EmbeddedServer, client: Client) -> Run:
    """Runs `laion_ingest` into the test's own database and returns the finished process."""

    def run(conf: dict[str, object]) -> subprocess.CompletedProcess[str]:
        target = {**clickhouse_server.airflow_connection, "schema": client.database}
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": DAGS,
            "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(target),
            "LAION_RETRIES": "0",
        }
        conf = {"dataset": "clip_retrieval", "build_index": False, "deploy_udfs": False, **conf}
        command = [AIRFLOW, "dags", "test", "laion_ingest", "--conf", json.dumps(conf)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run


def test_a_run_loads_every_shard(run_dag: Run, client: Client, tmp_path: Path) -> None:
    for shard, rows in enumerate((30, 20, 10)):
        write_little_shard(tmp_path, shard, rows)

    done = run_dag({"shards": "0-2", "source": tmp_path.as_uri()})

    assert done.returncode == 0, done.stdout + done.stderr
    assert "state=success" in done.stdout
    query = "SELECT shard, count(), uniqExact(id) FROM clip_retrieval GROUP BY shard ORDER BY shard"
    assert client.query(query).result_rows == [(0, 30, 30), (1, 20, 20), (2, 10, 10)]


def test_a_run_with_a_missing_shard_fails_and_keeps_the_good_ones(
    run_dag: Run, client: Client, tmp_path: Path
) -> None:
    for shard, rows in enumerate((30, 20)):
        write_little_shard(tmp_path, shard, rows)

    done = run_dag({"shards": "0-2", "source": tmp_path.as_uri(), "table": "partly"})

    assert "state=failed" in done.stdout
    assert "2 of 3 planned shards" in done.stdout + done.stderr
    assert client.query(
        "SELECT shard, count() FROM partly GROUP BY shard ORDER BY shard"
    ).result_rows == [
        (0, 30),
        (1, 20),
    ]
