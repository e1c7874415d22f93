"""Disks that are full or gone, memory, rights, clocks, and a ledger that cannot be written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.faults import checker
from tests.system.faults.checker import wait_for
from tests.system.faults.conftest import FILLER, fill_disk, small_disk
from tests.system.faults.test_points import INSERT, INSERT_BYTES
from tests.system.faults.world import ROWS, STAGES, World

SOURCE_BYTES = 3 * ROWS * 2 * 64 * 2
ROOMY = "64m"
OLD_STAGES = STAGES[:2]


def remount(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True)


def repair(world: World, shards: str = "failed") -> None:
    """Load what is not in, by a run of its own; then everything must be right."""
    again = world.start_run(shards)
    assert [outcome.state for outcome in again.load_shards()] == ["success"]
    assert again.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The staging disk is full in {stage}",
    promised="DiskFull at once, which says what to do; nothing left; later `failed` loads it",
)
@pytest.mark.parametrize(
    ("stage", "size"), [("download_shard", "512k"), ("convert_shard", "1500k")]
)
def test_staging_disk_full(world: World, stage: str, size: str) -> None:
    world.write_shards(ROWS)
    with small_disk(world.staging, size):
        run = world.start_run("0")
        ended = run.load_shards()[0]
        assert (ended.error_class, run.tries[stage, 0]) == ("DiskFull", 1)
        assert "LAION_STAGING_URI" in ended.error
        run.confirm()
        world.expect(published=[])
        remount(world.staging, f"size={ROOMY}")
        repair(world)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The disk of ClickHouse fills up during an INSERT",
    promised="a typed error; nothing visible; when there is room, `missing` loads the shard",
)
def test_server_disk_full(on_small_disk: World) -> None:
    world = on_small_disk
    world.write_shards(ROWS)
    run = world.start_run("0")

    def fill(_: object) -> None:
        fill_disk(world.server.path)

    with world.read():
        world.during("load_shard", INSERT, fill, after=INSERT_BYTES // 2)
        ended = run.load_shards()[0]
        world.tell(ended.error.split(":")[0])
        assert ended.state == "failed"
        (world.server.path / FILLER).unlink()
        run.confirm()
        world.expect(published=[])
        repair(world, "missing")


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="ClickHouse turns read-only for the user before {task}",
    promised="fails at once and says so; nothing half done; afterwards the shard is loaded",
)
@pytest.mark.parametrize("task", ["plan", *STAGES])
def test_read_only(world: World, task: str) -> None:
    world.write_shards(ROWS)
    run = world.new_run("0")
    if task != "plan":
        run.specs = run.run_task("plan").value
        before = STAGES[: STAGES.index(task)]
        assert not before or run.load_shard(0, before).state == "success"
    with world.read():
        world.extra = {"session_settings": {"readonly": "2"}}
        ended = run.run_task("plan") if task == "plan" else run.load_shard(0, (task,))
        world.extra = {}

        world.tell(ended.error[:80])
        tried = run.tries[task, -1 if task == "plan" else 0]
        assert (ended.state, tried) == ("failed", 1)
        assert "readonly" in ended.error
        run.confirm()
        repair(world, "0")


@pytest.mark.scenario(
    done="ClickHouse's memory limit is hit by the INSERT, twice",
    promised="ClickHouseBusy is tried again; the shard is in",
)
def test_memory_limit(world: World) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, OLD_STAGES).state == "success"
    parquet = run.values["convert_shard", 0]
    world.extra = {"session_settings": {"max_memory_usage": "3000000", "max_untracked_memory": "1"}}
    with world.read():
        for number in (1, 2):
            tried = run.attempt("load_shard", parquet, 0, number, max_tries=3)
            assert (tried.state, tried.error_class) == ("up_for_retry", "ClickHouseBusy")
            world.tell(f"load_shard try {number}: ClickHouseBusy")
        world.extra = {}
        run.tries["load_shard", 0] = 2
        assert run.load_shard(0, STAGES[2:]).state == "success"
        run.confirm()
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The ledger's table is gone during {stage}, and back later",
    promised="a typed error; nothing visible that the ledger does not know; then it loads",
)
@pytest.mark.parametrize("stage", STAGES)
def test_no_ledger(world: World, stage: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    index = STAGES.index(stage)
    if index:
        assert run.load_shard(0, STAGES[:index]).state == "success"
    with world.client() as client, world.read():
        client.command("RENAME TABLE shard_ledger TO hidden")
        ended = run.load_shard(0, (stage,))
        assert ended.state == "failed"
        world.tell(ended.error[:80])
        # The alert about the failure made an empty one.
        client.command("DROP TABLE IF EXISTS shard_ledger SYNC")
        client.command("RENAME TABLE hidden TO shard_ledger")
        run.confirm()
        world.expect(published=[])
        repair(world, "missing")


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The ledger cannot be written when a shard has just been published (disk quota, grant)",
    promised="the rows are in and whole; backfill finds them without a publication and loads again",
)
def test_ledger_fails_after_publication(world: World) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:3]).state == "success"
    with world.client() as client, world.read():
        lost = world.during("validate_shard", b"REPLACE PART", lambda _: None)
        world.clickhouse.on(
            b"INSERT INTO `shard_ledger`", world.cut, when=lost.fired.is_set, times=99
        )
        ended = run.clear(0, ("validate_shard",))
        assert ended.error_class == "ClickHouseUnreachable"
        world.clickhouse.rules.clear()
        run.confirm()
        world.expect(published=[0], agrees=False)
        plan = world.backfill_plan()
        assert [(r.shard, r.reason, r.action) for r in plan] == [(0, "mismatched", "load")]
        assert client.command("SELECT count() FROM shard_ledger WHERE stage = 'publish'") == 0
        repair(world, "0")


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Somebody deletes the staging area before {stage}",
    promised="the task stages the shard again; it is in",
)
@pytest.mark.parametrize("stage", ["convert_shard", "load_shard"])
def test_staging_deleted(world: World, stage: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    index = STAGES.index(stage)
    assert run.load_shard(0, STAGES[:index]).state == "success"
    shutil.rmtree(world.staging)

    assert run.load_shard(0, STAGES[index:]).state == "success"
    assert run.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Somebody {does} the staging table before validate_shard",
    promised="nothing of it is published; the shard is loaded again",
)
@pytest.mark.parametrize("does", ["drops", "truncates"])
def test_staging_table_lost(world: World, does: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:3]).state == "success"
    (staging,) = checker.left_tables(world.direct)
    with world.client() as client, world.read():
        client.command(f"{does.removesuffix('s')} TABLE `{staging}`")

        assert run.load_shard(0, STAGES[3:]).state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The staged Parquet file is {damage} before load_shard",
    promised="a typed error that says what to do; no wrong value is loaded; cleared, it is in",
)
@pytest.mark.parametrize("damage", ["cut short", "changed in one bit"])
def test_staged_file_damaged(world: World, damage: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, OLD_STAGES).state == "success"
    file = Path(run.values["convert_shard", 0]["path"])
    content = bytearray(file.read_bytes())
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)

    with world.read():
        ended = run.load_shard(0, STAGES[2:])
        assert ended.error_class == "StagingGone"
        assert "look at the disk" in ended.error
        world.expect(published=[], clean=False)
        assert run.clear(0, STAGES[2:]).state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The clock of ClickHouse is set back by an hour between two loads of changed files",
    promised="the second load is the one that stays",
)
def test_clock_set_back(world: World) -> None:
    world.write_shards(ROWS)
    with world.client() as client, world.read():
        assert world.start_run("0").load_shards()[0].state == "success"
        world.verify([0])
        client.command(
            "CREATE TABLE ahead ENGINE = MergeTree ORDER BY at AS "
            "SELECT * REPLACE (at + INTERVAL 1 HOUR AS at) FROM shard_ledger"
        )
        client.command("TRUNCATE TABLE shard_ledger")
        client.command("INSERT INTO shard_ledger SELECT * FROM ahead")
        client.command("DROP TABLE ahead")
        world.write_shards(ROWS - 100, seed=2)

        again = world.start_run("0")
        assert again.load_shards()[0].state == "success"
        assert again.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The clock of the worker jumps a day ahead while shards are staged",
    promised="nothing of a run that goes on is swept; the shard is in",
)
def test_worker_clock_ahead(world: World) -> None:
    world.write_shards(ROWS, 300, 300, 300, 300)
    run, other = world.start_run("0-3"), world.start_run("4")
    assert [run.load_shard(index, STAGES[:1]).state for index in range(4)] == ["success"] * 4
    world.clock_ahead_s = 86_400
    assert other.attempt("download_shard", other.specs[0], 0).state == "up_for_reschedule"
    world.clock_ahead_s = 0

    ended = [run.load_shard(index, STAGES[1:]).state for index in range(4)]

    assert ended == ["success"] * 4
    assert other.load_shards()[0].state == "success"
    world.expect(published=[0, 1, 2, 3, 4])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="convert_shard dies at byte {at} of the Parquet file",
    promised="the next try writes it anew; the shard is in",
)
@pytest.mark.parametrize("at", [4096, 300_000, 700_000])
def test_convert_dies_at_byte(world: World, at: int) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:1]).state == "success"
    with world.read():
        world.file_limit_bytes = at
        assert run.attempt("convert_shard", run.values[STAGES[0], 0], 0, 1, 3).state == "killed"
        world.tell("killed by the kernel")
        world.file_limit_bytes = 0
        run.tries["convert_shard", 0] = 1
        assert run.load_shard(0, STAGES[1:]).state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse when an INSERT of two blocks has committed the first",
    promised="the half that stayed is dropped by the next try; each row is in once",
)
def test_half_committed_insert(fragile: World) -> None:
    world = fragile
    rows = 36_000
    world.write_shards(rows, dimension=512)

    committed: list[int] = []

    def count() -> int:
        parts = (
            "SELECT sum(rows) FROM system.parts WHERE database = currentDatabase() AND active "
            "AND table LIKE '%staging%'"
        )
        return int(world.direct.rows(parts)[0][0])

    def crash(_: object) -> None:
        wait_for(count, 20)
        world.crash_server()
        committed.append(count())

    rule = world.during("load_shard", INSERT, crash, after=60 << 20)
    run = world.start_run("0")
    with world.read():
        assert run.load_shards()[0].state == "success"
        assert run.confirm().state == "success"
    assert rule.fired.is_set()
    world.tell(f"{committed[0]:,} of {rows:,} rows had been committed")
    assert 0 < committed[0] < rows
    world.expect(published=[0])
