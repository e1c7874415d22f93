"""The whole stack: every part of Airflow, PostgreSQL and ClickHouse killed while a run goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from laion.errors import AirflowRefused
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.sample.processes import start
from laion.sample.stack import PROJECT, StackInfo
from tests.receivers import WebHook
from tests.system.faults import checker
from tests.system.faults.checker import ClickHouse, Reader, wait_for
from tests.system.postgres_stack import (
    PARTS,
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
RUN_TIMEOUT_S = 180
HEARTBEAT_TIMEOUT_S = 20
AWAY_S = 2


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
        """Wait for a run while the API may be away; return its state.

        A part of Airflow that gives up, as the scheduler does without its database, is started
        again, as a service manager does.
        """
        deadline = time.monotonic() + RUN_TIMEOUT_S
        state = "unknown"
        while state not in ("success", "failed") and time.monotonic() < deadline:
            time.sleep(1)
            with suppress(requests.RequestException, AirflowRefused):
                state = self.api.run_state(DAG_ID, run_id)
            for part in self.stack.ended_parts():
                self.told.append(f"the {part} gave up and was started again")
                self.stack.start_part(part)
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


def restart(site: Site, part: str) -> None:
    """Kill a part and start it again after a while."""
    site.stack.kill(part)
    time.sleep(AWAY_S)
    site.stack.start_part(part)


def run_past(site: Site, fault: Callable[[], object], stage: str = "load") -> None:
    """Start a run, do something to the stack when a shard has come to a stage, and check all."""
    with Reader(site.database, site.table) as reader:
        run_id = site.trigger()
        site.wait_for_event(stage)
        fault()
        state = site.wait_for_run(run_id)
    assert state == "success"
    site.expect(reader)


@pytest.mark.parametrize("part", [*PARTS, "postgres"])
@pytest.mark.scenario(
    done="SIGKILL of the {part}, with all its processes, during a run; started again",
    promised="the run goes on and succeeds; every shard is in",
)
def test_part_killed(site: Site, part: str) -> None:
    run_past(site, lambda: restart(site, part))


@pytest.mark.scenario(
    done="SIGKILL of the scheduler's own process alone; its task processes live on",
    promised="whatever they still do, every shard is in once",
)
def test_scheduler_alone(site: Site) -> None:
    def fall() -> None:
        site.stack.kill_alone("scheduler")
        time.sleep(AWAY_S)
        site.stack.start_part("scheduler")

    run_past(site, fall)


@pytest.mark.scenario(
    done="SIGKILL of everything but ClickHouse at once, as when a machine is restarted",
    promised="the run goes on where it was; every shard is in",
)
def test_all_of_airflow(site: Site) -> None:
    def fall() -> None:
        for part in (*PARTS, "postgres"):
            site.stack.kill(part)
        for part in ("postgres", *PARTS):
            site.stack.start_part(part)

    run_past(site, fall)


@pytest.mark.scenario(
    done="SIGKILL of ClickHouse during a run; started again after two seconds",
    promised="tasks are tried again; the run succeeds",
)
def test_clickhouse(site: Site) -> None:
    def fall() -> None:
        process = site.stack._children["clickhouse"]
        command = psutil.Process(process.pid).cmdline()
        process.kill()
        time.sleep(AWAY_S)
        env = dict(os.environ, CLICKHOUSE_PASSWORD=site.info.clickhouse_password)
        site.stack._children["clickhouse"] = start("clickhouse", command, process.log, env)

    run_past(site, fall)


@pytest.mark.scenario(
    done="SIGKILL of the processes of running tasks, as when memory is short",
    promised="the tasks are tried again; the run succeeds",
)
def test_task_processes(site: Site) -> None:
    def kill() -> None:
        wait_for(lambda: kill_tasks(site.stack), RUN_TIMEOUT_S)

    run_past(site, kill, stage="convert")


def kill_tasks(stack: PostgresStack) -> int:
    """Kill the processes that run a task; return how many."""
    killed = 0
    for process in psutil.Process(stack._children["scheduler"].pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("airflow worker -- ") and "LocalExecutor" not in title:
                process.kill()
                killed += 1
    return killed


@pytest.mark.scenario(
    done="All tasks of a run are cleared while it is running",
    promised="the run starts over and succeeds; each shard is in once",
)
def test_cleared_while_running(site: Site) -> None:
    run_past(site, lambda: site.api.clear(DAG_ID, _all_tasks(site)), stage="validate")


def _all_tasks(site: Site) -> dict[str, Any]:
    run = site.api.get(f"dags/{DAG_ID}/dagRuns", order_by="-run_after")["dag_runs"][0]
    return {"dag_run_id": run["dag_run_id"], "only_failed": False, "reset_dag_runs": True}


@pytest.mark.scenario(
    done="A run is marked failed while it is running; then another is started with `missing`",
    promised="its tasks end; the other run loads what is not in",
)
def test_marked_failed(site: Site) -> None:
    with Reader(site.database, site.table) as reader:
        run_id = site.trigger()
        site.wait_for_event("validate")
        url = f"{site.api.url}/api/v2/dags/{DAG_ID}/dagRuns/{run_id}"
        assert site.api._session.patch(url, json={"state": "failed"}).ok
        assert site.wait_for_run(run_id) == "failed"
        assert site.wait_for_run(site.trigger(shards="missing")) == "success"
        again = site.trigger()  # What the first run may have left half way is taken up here.
        assert site.wait_for_run(again) == "success"
    site.expect(reader)


@pytest.mark.scenario(
    done="The DAG's file changes while a run is on (a deployment)",
    promised="the run goes on and succeeds",
)
def test_dag_changed(site: Site) -> None:
    def change() -> None:
        file = site.dags / "laion_ingest.py"
        file.write_text(file.read_text() + "\n# deployed\n")
        time.sleep(8)

    run_past(site, change)


@pytest.mark.scenario(
    done="Two runs over the same shards at once, and a backfill on top",
    promised="all succeed; each shard is in once",
)
def test_runs_at_once(site: Site) -> None:
    with Reader(site.database, site.table) as reader:
        runs = [site.trigger(), site.trigger()]
        site.wait_for_event("load")
        conf = {"dataset": "clip_retrieval", "table": site.table, "dry_run": False}
        site.api.trigger("laion_backfill", conf)
        assert [site.wait_for_run(run_id) for run_id in runs] == ["success"] * 2
    site.expect(reader)
