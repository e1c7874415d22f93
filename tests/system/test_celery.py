"""The topology of the Compose stack, really run: Celery workers, one of which is killed at work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from laion.errors import AirflowRefused
from laion.sample.airflow_api import AirflowApi
from tests.s3 import S3Server
from tests.system.compose_stack import ComposeStack, missing_programs

RUN_TIMEOUT_S = 300
CONF = {"dataset": "sample", "shards": "all"}
ROWS = 12_000

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"not installed: {missing_programs()}"
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[ComposeStack]:
    with ComposeStack(tmp_path_factory.mktemp("compose"), s3_server) as stack:
        yield stack


def wait_for(condition: Callable[[], object], timeout_s: float = RUN_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def running_pids(api: AirflowApi, run_id: str) -> set[int]:
    tasks = api.task_instances("laion_ingest", run_id)
    return {task["pid"] for task in tasks if task["state"] == "running"}


def test_every_service_passes_its_health_check(stack: ComposeStack) -> None:
    stack.check_all_healthy()


def test_a_viewer_looks_and_an_operator_acts(stack: ComposeStack) -> None:
    viewer, operator = stack.api("viewer"), stack.api("operator")

    for api in (viewer, operator):
        pages = requests.get(
            f"{stack.airflow_url}/laion/shards",
            headers={"Authorization": str(api._session.headers["Authorization"])},
            timeout=30,
        )
        assert pages.status_code == 200
        with pytest.raises(AirflowRefused, match="403"):
            api.get("connections")
    with pytest.raises(AirflowRefused, match="403"):
        viewer.trigger("laion_ingest", CONF)


def test_a_run_survives_a_worker_that_is_killed_at_work(stack: ComposeStack) -> None:
    api = stack.api("operator")
    with stack.clickhouse.client(database="laion") as client:
        run_id = api.trigger("laion_ingest", CONF)
        published = "SELECT count() FROM shard_status WHERE is_published"
        wait_for(lambda: client.command("EXISTS shard_status") and client.command(published))
        killed = 0

        def kill() -> int:
            nonlocal killed
            killed = stack.kill_at_work("worker2", lambda: running_pids(api, run_id))
            return killed

        wait_for(kill)

        state = api.wait_for_run("laion_ingest", run_id, RUN_TIMEOUT_S)
        tasks = api.task_instances("laion_ingest", run_id)
        failed = [task["task_id"] for task in tasks if task["state"] == "failed"]
        assert state == "success", (failed, list(stack.state.glob("worker*/logs")))
        again = [task for task in tasks if task["try_number"] > 1]
        print(f"{killed} processes killed; {len(again)} of {len(tasks)} tasks were tried again")
        assert again
        counted = client.query("SELECT count(), uniqExact(id) FROM sample").result_rows
        assert counted == [(ROWS, ROWS)]
        every = f"sample_near(q = encode_text('a cat'), k = {ROWS})"
        assert client.command(f"SELECT count() FROM {every}") == ROWS
        assert client.command("SELECT length(encode_text('a cat'))") == 384
        leftovers = "SELECT count() FROM system.tables WHERE name LIKE '%_staging_%'"
        assert client.command(leftovers) == 0
        # A download killed between taking its place and its first word in the ledger has left that
        # place, which the next download that finds the area full frees.
        left = stack.s3.client().list_objects_v2(Bucket=stack.bucket).get("Contents", [])
        known = {row[0] for row in client.query("SELECT attempt FROM shard_ledger").result_rows}
        attempts = [re.fullmatch(r".*-([0-9a-f]{8})/\.claim", found["Key"]) for found in left]
        assert all(match and match[1] not in known for match in attempts), left
