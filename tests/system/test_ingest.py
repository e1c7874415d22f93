"""`laion_ingest` on the real stack, triggered and cleared over Airflow's REST API."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from laion.errors import AirflowRefused
from laion.sample.stack import Stack, StackInfo
from tests.receivers import WebHook
from tests.system.conftest import Job

STAGES = ("download_shard", "convert_shard", "load_shard", "validate_shard")


def test_all_shards_good(job: Job, stack: tuple[Stack, StackInfo]) -> None:
    job.write_shards(300, 200, 100)

    run_id, state = job.run(shards="0-2", build_index=True)

    assert state == "success"
    assert job.rows_by_shard() == {0: (300, 300), 1: (200, 200), 2: (100, 100)}
    assert job.client.command(f"SELECT count() FROM {job.table}_search") == 600
    labels = {
        task["rendered_map_index"]
        for task in job.api.task_instances("laion_ingest", run_id)
        if task["task_id"].startswith("ingest_shard.")
    }
    assert labels == {"shard 00000", "shard 00001", "shard 00002"}
    assert job.leftovers() == []
    assert list((stack[0].state / "staging" / job.table).iterdir()) == []
    events = job.api.get("assets/events", source_run_id=run_id, limit=20)["asset_events"]
    assert sorted((e["name"], e["partition_key"] or "", e["extra"]["table"]) for e in events) == [
        ("laion_base_table", "", job.table),
        *(("laion_base_table", f"{job.table}/{shard}", job.table) for shard in range(3)),
        ("laion_search_table", "", f"{job.table}_near"),
    ]


def test_one_shard_broken_then_repaired(job: Job, alerts: WebHook) -> None:
    job.write_shards(200, 200, 200)
    broken = job.source / "img_emb" / "img_emb_1.npy"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-100])

    run_id, state = job.run(shards="0-2")

    assert state == "failed"
    assert job.rows_by_shard() == {0: (200, 200), 2: (200, 200)}
    status = job.client.query(
        "SELECT shard, is_published, last_stage, last_state, error_class, error FROM shard_status "
        "WHERE table = {t:String} ORDER BY shard",
        parameters={"t": job.table},
    ).result_rows
    assert [row[:5] for row in status] == [
        (0, 1, "publish", "done", ""),
        (1, 0, "download", "failed", "BadNpy"),
        (2, 1, "publish", "done", ""),
    ]
    assert "truncated" in status[1][5]
    assert len(alerts.about("shard 00001 failed in download_shard")) == 1
    digests = [m for m in alerts.about(job.table) if "is incomplete" in m["title"]]
    assert len(digests) == 1
    assert "2 of 3 planned shards" in digests[0]["message"]
    assert "Missing: shards 1." in digests[0]["message"]

    good = job.parts(0), job.parts(2)
    broken.write_bytes(whole)
    assert job.clear(run_id, only_failed=True) == "success"

    assert job.rows_by_shard() == {0: (200, 200), 1: (200, 200), 2: (200, 200)}
    assert (job.parts(0), job.parts(2)) == good


def test_a_load_that_failed_for_good_is_repaired_by_clearing_only_failed(job: Job) -> None:
    job.write_shards(100, 100)
    _, state = job.run(shards="0")
    assert state == "success"
    job.client.command(f"ALTER TABLE {job.table} ADD COLUMN bad UInt8 DEFAULT throwIf(shard = 1)")

    run_id, state = job.run(shards="1")

    assert state == "failed"
    assert job.task_states(run_id, "ingest_shard.convert_shard") == ["success"]
    assert job.task_states(run_id, "ingest_shard.load_shard") == ["failed"]
    assert job.leftovers() == []

    job.client.command(f"ALTER TABLE {job.table} DROP COLUMN bad")
    assert job.clear(run_id, only_failed=True) == "success"

    assert job.rows_by_shard() == {0: (100, 100), 1: (100, 100)}
    assert job.leftovers() == []


def test_failed_and_missing_shards_by_name_and_a_plan_that_stays(job: Job) -> None:
    job.write_shards(100, 100, 100)
    hidden = job.source / "metadata" / "metadata_2.parquet"
    kept = hidden.read_bytes()
    hidden.unlink()

    _, state = job.run(shards="0-2", tolerate_failed_shards=1)
    assert state == "success"
    assert sorted(job.rows_by_shard()) == [0, 1]

    hidden.write_bytes(kept)
    run_id, state = job.run(shards="failed")
    assert state == "success"
    assert job.task_states(run_id, "ingest_shard.validate_shard") == ["success"]
    assert sorted(job.rows_by_shard()) == [0, 1, 2]

    others = job.parts(0), job.parts(1)
    assert job.clear(run_id, task_ids=["plan"], include_downstream=True) == "success"
    assert job.task_states(run_id, "ingest_shard.validate_shard") == ["success"]
    assert (job.parts(0), job.parts(1)) == others

    run_id, state = job.run(shards="missing")
    assert state == "success"
    assert job.task_states(run_id, "ingest_shard.validate_shard") in ([], ["skipped"])


def test_finished_tasks_cleared_once_more(job: Job) -> None:
    job.write_shards(150)
    run_id, state = job.run(shards="0")
    assert state == "success"
    loaded = {0: (150, 150)}

    def clear(stage: str, downstream: bool) -> str:
        task = f"ingest_shard.{stage}"
        body = {"task_ids": [[task, 0]], "include_downstream": downstream}
        return job.clear(run_id, **body)

    assert clear("validate_shard", downstream=False) == "success"
    assert job.task_states(run_id, "ingest_shard.validate_shard") == ["success"]

    for stage in ("load_shard", "download_shard"):
        assert clear(stage, downstream=True) == "success"
        assert [job.task_states(run_id, f"ingest_shard.{stage}") for stage in STAGES] == [
            ["success"]
        ] * 4
        assert job.rows_by_shard() == loaded
        assert job.leftovers() == []


def test_two_runs_over_the_same_shards_at_once(job: Job) -> None:
    job.write_shards(200, 200)

    runs = [job.start(shards="0-1"), job.start(shards="0-1")]
    states = [job.wait(run_id) for run_id in runs]

    assert states == ["success", "success"]
    assert job.rows_by_shard() == {0: (200, 200), 1: (200, 200)}
    assert job.leftovers() == []


def test_a_file_source_stays_as_it_is(job: Job, stack: tuple[Stack, StackInfo]) -> None:
    job.write_shards(100, 50)
    before = _fingerprint(job.source)

    _, state = job.run(shards="0-1", source=job.source.as_uri(), keep_parquet=True)

    assert state == "success"
    assert _fingerprint(job.source) == before
    assert job.rows_by_shard() == {0: (100, 100), 1: (50, 50)}
    kept = stack[0].state / "staging" / "parquet" / job.table
    assert sorted(path.name for path in kept.iterdir()) == ["0.parquet", "1.parquet"]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"shards": "first ten"}, "0-9,12"),
        ({"dataset": "laion"}, "laion400m"),
        ({"table": "drop table"}, "drop table"),
        ({"source": "/data"}, "/data"),
    ],
)
def test_bad_params_are_refused_when_triggered(job: Job, params: dict[str, str], says: str) -> None:
    with pytest.raises(AirflowRefused, match=says):
        job.start(**{"shards": "0", **params})


def test_a_source_without_the_shard_fails_the_plan(job: Job, alerts: WebHook) -> None:
    run_id, state = job.run(shards="7")

    assert state == "failed"
    assert job.task_states(run_id, "plan") == ["failed"]
    message = alerts.about("shard 00007: the source has no such shard")
    assert len(message) == 1
    assert "trying again does not help" in message[0]["message"]


def _fingerprint(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(directory)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
