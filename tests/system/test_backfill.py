"""`laion_backfill` on the real stack: what was damaged is repaired, the rest is not touched."""

from __future__ import annotations

from tests.system.conftest import DAG_ID, RUN_TIMEOUT_S, Job


def test_damaged_shards_are_loaded_again_after_their_run_was_deleted(job: Job) -> None:
    job.write_shards(100, 90, 80, 70)
    run_id, state = job.run(shards="0-3")
    assert state == "success"
    untouched = job.parts(0), job.parts(3)
    job.client.command(f"ALTER TABLE {job.table} DROP PARTITION 1")
    # Not by a mutation: that renames the parts of every partition.
    job.client.command(
        f"INSERT INTO {job.table} SELECT * FROM {job.table} WHERE shard = 2 AND id % 2 = 0"
    )
    delete_run(job, run_id)

    backfill_id = job.api.trigger("laion_backfill", {"table": job.table, "dry_run": False})
    state = job.api.wait_for_run("laion_backfill", backfill_id, RUN_TIMEOUT_S)

    assert state == "success"
    assert job.rows_by_shard() == {0: (100, 100), 1: (90, 90), 2: (80, 80), 3: (70, 70)}
    assert (job.parts(0), job.parts(3)) == untouched
    assert job.task_states(f"backfill_{backfill_id}", "ingest_shard.validate_shard") == [
        "success",
        "success",
    ]


def delete_run(job: Job, run_id: str) -> None:
    answer = job.api._session.delete(f"{job.api.url}/api/v2/dags/{DAG_ID}/dagRuns/{run_id}")
    assert answer.status_code == 204, answer.text
