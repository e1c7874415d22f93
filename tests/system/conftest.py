"""The real stack, shared by all system tests: Airflow, ClickHouse, a source, two alert channels."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from laion.sample.airflow_api import AirflowApi
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.sample.stack import Stack, StackInfo, running_stack
from tests.receivers import MailServer, WebHook

DAG_ID = "laion_ingest"
EMBEDDINGS = made_up_embeddings(16)
RUN_TIMEOUT_S = 240


@dataclass(frozen=True)
class Job:
    """Runs `laion_ingest` on shards of its own in a table of its own."""

    api: AirflowApi
    client: Client
    table: str
    source: Path
    source_url: str

    def write_shards(self, *rows: int) -> None:
        for number, count in enumerate(rows):
            write_shard(self.source, number, count, EMBEDDINGS)

    def start(self, **params: Any) -> str:
        conf = {
            "dataset": "clip_retrieval",
            "table": self.table,
            "source": self.source_url,
            "build_index": False,
            "index_kind": "hnsw",
            **params,
        }
        return self.api.trigger(DAG_ID, conf)

    def wait(self, run_id: str) -> str:
        return self.api.wait_for_run(DAG_ID, run_id, RUN_TIMEOUT_S)

    def run(self, **params: Any) -> tuple[str, str]:
        """Trigger a run, wait for it, and return (run id, state)."""
        run_id = self.start(**params)
        return run_id, self.wait(run_id)

    def clear(self, run_id: str, **body: Any) -> str:
        """Clear tasks of a run, wait for it, and return its state."""
        body = {"dag_run_id": run_id, "reset_dag_runs": True, "only_failed": False, **body}
        self.api.clear(DAG_ID, body)
        return self.wait(run_id)

    def task_states(self, run_id: str, name: str) -> list[str]:
        """Return the states of a task's instances by map index."""
        found = [t for t in self.api.task_instances(DAG_ID, run_id) if t["task_id"] == name]
        return [task["state"] for task in sorted(found, key=lambda task: task["map_index"])]

    def rows_by_shard(self) -> dict[int, tuple[int, int]]:
        """Return (rows, distinct ids) of every shard in the base table."""
        query = (
            f"SELECT shard, count(), uniqExact(id) FROM {self.table} GROUP BY shard ORDER BY shard"
        )
        return {row[0]: (row[1], row[2]) for row in self.client.query(query).result_rows}

    def parts(self, shard: int) -> list[str]:
        query = (
            "SELECT name, modification_time FROM system.parts WHERE active "
            "AND table = {t:String} AND partition = {p:String} ORDER BY name"
        )
        parameters = {"t": self.table, "p": str(shard)}
        return self.client.query(query, parameters=parameters).result_rows

    def leftovers(self) -> list[str]:
        query = "SELECT name FROM system.tables WHERE name LIKE {t:String}"
        parameters = {"t": f"{self.table}_staging_%"}
        return [row[0] for row in self.client.query(query, parameters=parameters).result_rows]


@pytest.fixture(scope="session")
def alerts() -> Iterator[WebHook]:
    with WebHook() as hook:
        yield hook


@pytest.fixture(scope="session")
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, alerts: WebHook, mails: MailServer
) -> Iterator[tuple[Stack, StackInfo]]:
    env = stack_env(alerts.url, mails.url)
    with running_stack(tmp_path_factory.mktemp("stack"), env) as running:
        yield running


def stack_env(*channels: str) -> dict[str, str]:
    """Return what Airflow is told: where alerts go, and to try again once, soon."""
    config = [{"path": channel} for channel in channels]
    connection = {"conn_type": "apprise", "extra": {"config": config}}
    return {
        "AIRFLOW_CONN_LAION_ALERTS": json.dumps(connection),
        "LAION_RETRIES": "1",
        "LAION_RECALL_QUERIES": "20",
        "LAION_RETRY_DELAY_S": "1",
    }


@pytest.fixture
def job(
    stack: tuple[Stack, StackInfo], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Job]:
    running, info = stack
    client = running.clickhouse_client(info)
    table = request.node.name.removeprefix("test_")[:60]
    source = tmp_path / "source"
    source.mkdir()
    handler = functools.partial(QuietFiles, directory=str(source))
    with serving(handler) as port:
        yield Job(running.airflow_api(info), client, table, source, f"http://127.0.0.1:{port}")
    client.close()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None: ...


class serving:  # noqa: N801
    """A threaded HTTP server on a port of 127.0.0.1, any by default, for the length of a block."""

    def __init__(self, handler: Any, port: int = 0) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> int:
        self.thread.start()
        return self.server.server_port

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
