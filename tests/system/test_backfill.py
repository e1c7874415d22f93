"""`laion_backfill` on the real stack: what was damaged is repaired, the rest is not touched."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laion.monitor import check_counts, check_leftovers
from laion.sample.stack import Stack
from laion.storage import STALE_AFTER_S
from tests.embedded_server import poll
from tests.receivers import WebHook
from tests.system.conftest import DAG_ID, RUN_TIMEOUT_S, Job, stack_env

DEADLINE_HOURS = 0.001
SLOW_ROWS = 2800
SLOW_COLUMN = "slow UInt8 DEFAULT sleepEachRow(0.001)"
"""An owner's column that makes the load of `SLOW_ROWS` rows take seconds: time to be killed in."""


def test_damaged_shards_are_loaded_again_after_their_run_was_deleted(job: Job) -> None:
    job.write_shards(5000, 5000, 5000, 5000)
    run_id, state = job.run(shards="0-3", build_index=True)
    assert state == "success"
    untouched = job.parts(0), job.parts(1)
    job.client.command(f"ALTER TABLE {job.table} DROP PARTITION 2")
    # Not by a mutation: that renames the parts of every partition.
    job.client.command(
        f"INSERT INTO {job.table} SELECT * FROM {job.table} WHERE shard = 3 AND id % 2 = 0"
    )
    delete_run(job, run_id)

    assert wanted_shards(job, dry_run(job)) == "2-3"
    backfill_id, state = backfill(job, dry_run=False)

    assert state == "success"
    assert job.rows_by_shard() == dict.fromkeys(range(4), (5000, 5000))
    assert (job.parts(0), job.parts(1)) == untouched
    ingest_id = f"backfill_{backfill_id}"
    assert job.task_states(ingest_id, "ingest_shard.validate_shard") == ["success", "success"]
    # Of the search table's two parts, that of the two shards was built anew, and it was measured.
    assert job.task_states(ingest_id, "build_index") == ["success"]
    assert job.task_states(ingest_id, "measure_recall") == ["success"]
    assert job.client.command(f"SELECT count() FROM {job.table}_search") == 20_000
    assert wanted_shards(job, dry_run(job)) is None


@pytest.fixture
def hook() -> Iterator[WebHook]:
    with WebHook() as hook:
        yield hook


def test_a_worker_killed_in_the_middle_of_a_load_and_airflow_s_database_lost(
    tmp_path: Path, hook: WebHook
) -> None:
    """Two starts of Airflow make this slow; nothing less has a database to lose."""
    env = {**stack_env(hook.url), "LAION_DEADLINE_HOURS": str(DEADLINE_HOURS)}
    stack = Stack(tmp_path / "stack", env)
    try:
        job = _start(stack, tmp_path)
        job.write_shards(100, 100, 100, SLOW_ROWS)
        first_id, state = job.run(shards="0-2")
        assert state == "success"
        job.client.command(f"ALTER TABLE {job.table} ADD COLUMN {SLOW_COLUMN}")
        untouched = [job.parts(shard) for shard in range(3)]
        job.start(shards="3")
        _kill_airflow_in_the_middle_of_a_load(stack, job)
        assert len(hook.about(f"run {first_id} is late")) == 1

        assert check_counts(job.client, job.table) == []
        (finding,) = check_counts(job.client, job.table, quiet_s=-1)
        assert "in the middle of 'load': its worker was killed or lost" in finding.summary
        (staging,) = job.leftovers()
        # Hours must pass before nobody can be using the table.
        assert check_leftovers(job.client, job.table, STALE_AFTER_S) == []
        assert staging in check_leftovers(job.client, job.table, older_s=0)[0].summary

        stack.stop()
        shutil.rmtree(stack.state / "airflow")
        job = _start(stack, tmp_path)

        assert wanted_shards(job, dry_run(job)) is None
        assert wanted_shards(job, dry_run(job, quiet_minutes=0)) == "3"
        assert job.api.get(f"dags/{DAG_ID}/dagRuns")["total_entries"] == 0
        _, state = backfill(job, dry_run=False, quiet_minutes=0)
        assert state == "success"
        assert job.rows_by_shard()[3] == (SLOW_ROWS, SLOW_ROWS)
        assert [job.parts(shard) for shard in range(3)] == untouched
    finally:
        stack.stop()


def _start(stack: Stack, tmp_path: Path) -> Job:
    info = stack.start()
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    client = stack.clickhouse_client(info)
    return Job(stack.airflow_api(info), client, "pictures", source, source.as_uri())


def _kill_airflow_in_the_middle_of_a_load(stack: Stack, job: Job) -> None:
    info = stack.running()
    assert info is not None
    poll(
        lambda: (
            job.client.command(
                "SELECT count() FROM shard_ledger WHERE shard = 3 AND stage = 'load'"
            )
            and job.leftovers()
        )
    )
    os.killpg(info.pids["airflow"], signal.SIGKILL)


def backfill(job: Job, **params: Any) -> tuple[str, str]:
    """Run `laion_backfill` on the job's table and return (run id, state)."""
    conf = {"dataset": "clip_retrieval", "table": job.table, **params}
    run_id = job.api.trigger("laion_backfill", conf)
    return run_id, job.api.wait_for_run("laion_backfill", run_id, RUN_TIMEOUT_S)


def dry_run(job: Job, **params: Any) -> str:
    run_id, state = backfill(job, **params)
    assert state == "success"
    return run_id


def wanted_shards(job: Job, backfill_id: str) -> str | None:
    """Return the shards that a run of `laion_backfill` found; None when there is nothing to do."""
    tasks = f"dags/laion_backfill/dagRuns/{backfill_id}/taskInstances"
    conf = job.api.get(f"{tasks}/find_shards/xcomEntries/return_value?deserialize=true")["value"]
    return conf.get("shards")


def delete_run(job: Job, run_id: str) -> None:
    answer = job.api._session.delete(f"{job.api.url}/api/v2/dags/{DAG_ID}/dagRuns/{run_id}")
    assert answer.status_code == 204, answer.text
