"""The whole stack, with PostgreSQL: a part of Airflow is killed while a run goes on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from laion.errors import AirflowRefused
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.sample.stack import PROJECT, StackInfo
from tests.receivers import WebHook
from tests.system.faults import checker
from tests.system.faults.checker import ClickHouse, Reader, wait_for
from tests.system.postgres_stack import (
    PostgresStack,
    postgres_programs,
    running_postgres_stack,
)

pytestmark = [
    pytest.mark.slow_fault,
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed"),
]

DAG_ID = "laion_ingest"
ROWS = (400, 300, 200, 100, 150)
RUN_TIMEOUT_S = 400
AWAY_S = 2
HEARTBEAT_TIMEOUT_S = 20


@dataclass
class Site:
    """The running stack, and a table and a source of a scenario's own."""

    stack: PostgresStack
    info: StackInfo
    dags: Path
    table: str
    source: Path
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = self.stack.airflow_api(self.info)
        url = f"http://127.0.0.1:{self.info.clickhouse_port}"
        self.database = ClickHouse(url, self.info.clickhouse_password, "default")

    def trigger(self, **params: Any) -> str:
        conf = {
            "dataset": "clip_retrieval",
            "table": self.table,
            "source": self.source.as_uri(),
            "shards": f"0-{len(ROWS) - 1}",
            "build_index": False,
            "deploy_udfs": False,
            **params,
        }
        return self.api.trigger(DAG_ID, conf)

    def wait_for_event(self, stage: str) -> None:
        """Wait until a shard of the table has come to a stage."""
        query = (
            f"SELECT count() FROM shard_ledger WHERE table = '{self.table}' AND stage = '{stage}'"
        )

        def has_come() -> bool:
            with suppress(OSError):
                return self.database.rows(query) != [["0"]]
            return False

        wait_for(has_come, RUN_TIMEOUT_S)

    def wait_for_run(self, run_id: str) -> str:
        """Wait for a run while the API may be away; return its state."""
        deadline = time.monotonic() + RUN_TIMEOUT_S
        state = "unknown"
        while state not in ("success", "failed") and time.monotonic() < deadline:
            time.sleep(1)
            with suppress(requests.RequestException, AirflowRefused):
                state = self.api.run_state(DAG_ID, run_id)
        self.told.append(f"the run ended: {state}")
        return state

    def expect(self, reader: Reader, shards: int = len(ROWS)) -> None:
        """Every shard is in and equal to the source; nothing else is there."""
        held = checker.held_shards(self.database, self.table)
        assert sorted(held) == list(range(shards))
        wrong = [
            problem
            for shard in held
            for problem in checker.compare_shard(self.database, self.table, self.source, shard)
        ]
        wrong += reader.judge(held.items()) + checker.judge_ledger(self.database, self.table)
        wrong += [table for table in checker.left_tables(self.database) if self.table in table]
        staging = self.stack.state / "staging" / self.table
        wrong += checker.left_files(staging) if staging.exists() else []
        assert wrong == []
        board = self.api._session.get(f"{self.api.url}/laion/board?table={self.table}").json()
        validated = [cell for cell in board["changes"]["cells"] if cell[1] == 5]
        assert len(validated) == shards
        self.told.append(
            f"{len(held)} shards, every value equal; {reader.reads} reads saw whole ones"
        )


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PostgresStack, StackInfo, Path]]:
    directory = tmp_path_factory.mktemp("stack")
    dags = directory / "dags"
    shutil.copytree(PROJECT / "dags", dags)
    with WebHook() as hook:
        channel = {"config": {"path": hook.url, "tag": "all"}}
        env = {
            "AIRFLOW_CONN_LAION_ALERTS": json.dumps({"conn_type": "apprise", "extra": channel}),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT_S),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "LAION_RETRY_DELAY_S": "1",
        }
        with running_postgres_stack(directory / "state", env) as (stack, info):
            yield stack, info, dags


@pytest.fixture
def site(
    stack: tuple[PostgresStack, StackInfo, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Site:
    name = "".join(c if c.isalnum() else "_" for c in request.node.name.removeprefix("test_"))
    for shard, rows in enumerate(ROWS):
        write_shard(tmp_path, shard, rows, made_up_embeddings(16))
    site = Site(*stack, table=name[:50], source=tmp_path)
    request.node.user_properties.append(("told", site.told))
    return site


def run_past(site: Site, fault: Callable[[], object], stage: str = "load") -> None:
    """Start a run, do something to the stack when a shard has come to a stage, and check all."""
    with Reader(site.database, site.table) as reader:
        run_id = site.trigger()
        site.wait_for_event(stage)
        fault()
        state = site.wait_for_run(run_id)
    assert state == "success"
    site.expect(reader)


@pytest.mark.scenario(
    done="SIGKILL of the scheduler, with all its processes, during a run; started again",
    promised="the run goes on and succeeds; every shard is in",
)
def test_scheduler_killed(site: Site) -> None:
    def restart() -> None:
        site.stack.kill("scheduler")
        time.sleep(AWAY_S)
        site.stack.start_part("scheduler")

    run_past(site, restart)
