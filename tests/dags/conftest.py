"""An Airflow of its own for these tests, with the project's DAGs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from clickhouse_connect.driver.client import Client

from tests.embedded_server import EmbeddedServer

DAGS = Path(__file__).parents[2] / "dags"
AIRFLOW = str(Path(sys.executable).parent / "airflow")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    return DagBag(DAGS, bundle_path=DAGS)


@pytest.fixture(scope="session")
def laion_ingest(dag_bag: DagBag) -> DAG:
    return dag_bag.dags["laion_ingest"]


@pytest.fixture(scope="session")
def laion_backfill(dag_bag: DagBag) -> DAG:
    return dag_bag.dags["laion_backfill"]


@pytest.fixture(scope="session")
def laion_monitor(dag_bag: DagBag) -> DAG:
    return dag_bag.dags["laion_monitor"]


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
    """Runs `laion_ingest` into the test's own database and returns the finished process.

    It is called with the params, and with environment variables.
    """

    def run(conf: dict[str, object], **variables: str) -> subprocess.CompletedProcess[str]:
        target = {**clickhouse_server.airflow_connection, "schema": client.database}
        env = {
            **os.environ,
            "AIRFLOW_HOME": str(airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(target),
            "LAION_RETRIES": "0",
            "LAION_RECALL_QUERIES": "10",
            **variables,
        }
        conf = {"dataset": "clip_retrieval", "build_index": False, "deploy_udfs": False, **conf}
        command = [AIRFLOW, "dags", "test", "laion_ingest", "--conf", json.dumps(conf)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return run
