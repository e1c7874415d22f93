"""Two at once, too late, once more: attempts at a shard that overlap or follow each other."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.faults.proxy import Passage
from tests.system.faults.test_points import INSERT, INSERT_BYTES, LEDGER
from tests.system.faults.world import ROWS, STAGES, Run, World


@pytest.mark.scenario(
    done="Two runs over the same three shards at once",
    promised="both succeed; each shard is in once",
)
def test_two_runs_at_once(world: World) -> None:
    world.write_shards(900, 700, 300)
    runs = [world.start_run("0-2") for _ in range(2)]

    with world.read(), ThreadPoolExecutor(2) as pool:
        ended = [o for outcomes in pool.map(Run.load_shards, runs) for o in outcomes]
    gates = [run.confirm().state for run in runs]

    assert {outcome.state for outcome in ended} == {"success"}
    assert gates == ["success"] * 2
    world.expect(published=[0, 1, 2])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The same shard into two tables at once", promised="neither touches the other"
)
def test_two_tables_at_once(world: World) -> None:
    world.write_shards(ROWS)
    runs = [world.start_run("0"), world.start_run("0", table="other")]

    with world.read(), world.read("other"), ThreadPoolExecutor(2) as pool:
        ended = [o for outcomes in pool.map(Run.load_shards, runs) for o in outcomes]

    assert {outcome.state for outcome in ended} == {"success"}
    world.expect(published=[0])
    world.expect(published=[0], table="other")


@pytest.mark.scenario(
    done="An attempt is validated after a later one was published, with newer files",
    promised="the later one stays; the late one cleans up after itself",
)
def test_late_attempt(world: World) -> None:
    world.write_shards(ROWS)
    late, later = world.start_run("0"), world.start_run("0")
    assert late.load_shard(0, STAGES[:3]).state == "success"
    world.write_shards(ROWS - 500, seed=2)

    with world.read():
        assert later.load_shards()[0].state == "success"
        world.verify([0])
        assert late.clear(0, ("validate_shard",)).state == "success"

    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The files change at the source between two loads, {change}",
    promised="readers see the old shard whole, then the new one whole",
)
@pytest.mark.parametrize("change", ["same rows", "fewer rows", "more rows"])
def test_new_files(world: World, change: str) -> None:
    world.write_shards(ROWS)
    with world.read():
        assert world.start_run("0").load_shards()[0].state == "success"
        world.verify([0])
        rows = {"same rows": ROWS, "fewer rows": ROWS // 3, "more rows": ROWS + 999}[change]
        world.write_shards(rows, seed=2)
        assert world.start_run("0").load_shards()[0].state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="A published shard is loaded again from a truncated file",
    promised="a typed error; the old rows stay visible all the time",
)
def test_broken_new_files(world: World) -> None:
    world.write_shards(ROWS)
    broken = world.source / "img_emb" / "img_emb_0.npy"
    with world.read():
        assert world.start_run("0").load_shards()[0].state == "success"
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-1000])
        again = world.start_run("0")
        assert again.load_shards()[0].error_class == "BadNpy"
        broken.write_bytes(whole)
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="download_shard is cleared while the load of the same shard is running, and the old "
    "process lives on",
    promised="the new attempt is in; the old process ends with an error and changes nothing",
)
def test_cleared_while_loading(world: World) -> None:
    world.write_shards(ROWS)
    go_on = threading.Event()

    def wait(_: Passage) -> None:
        go_on.wait(30)

    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:2]).state == "success"
    stalled = world.during("load_shard", INSERT, wait, after=INSERT_BYTES // 2)
    old = run.values["convert_shard", 0]
    with world.read(), ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(run.attempt, "load_shard", old, 0)
        assert stalled.fired.wait(30)
        assert run.clear(0, STAGES).state == "success"
        go_on.set()
        ended = zombie.result()
    world.tell(f"the old process: {ended.state} {ended.error_class}")

    assert ended.state == "failed"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="validate_shard is given up by Airflow before REPLACE PARTITION and lives on, while its "
    "next try runs",
    promised="the next try publishes; the old process changes nothing",
)
def test_validated_twice(world: World) -> None:
    world.write_shards(ROWS)
    go_on = threading.Event()
    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:3]).state == "success"
    staged = run.values["load_shard", 0]
    stalled = world.during("validate_shard", b"REPLACE PART", lambda _: go_on.wait(30))
    with world.read(), ThreadPoolExecutor(1) as pool:
        zombie = pool.submit(run.attempt, "validate_shard", staged, 0)
        assert stalled.fired.wait(30)
        assert run.run_task("validate_shard", staged, 0).state == "success"
        go_on.set()
        ended = zombie.result()
    world.tell(f"the old process: {ended.state} {ended.error_class}")

    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Tasks of a published shard are cleared, from {first} on",
    promised="it stays as it is, or is loaded again",
)
@pytest.mark.parametrize("first", STAGES)
def test_cleared_when_finished(world: World, first: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    with world.read():
        assert run.load_shards()[0].state == "success"
        assert run.clear(0, STAGES[STAGES.index(first) :]).state == "success"
    world.expect(published=[0])


@pytest.mark.scenario(
    done="{task} fails for good, and is cleared when the cause is mended (*Only failed*)",
    promised="nothing is left meanwhile; then what it needs is staged again, and the shard is in",
)
@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[] if task == "load_shard" else pytest.mark.slow_fault)
        for task in STAGES
    ],
)
def test_only_failed_cleared(world: World, task: str) -> None:
    world.write_shards(ROWS)
    world.during(task, b"INSERT INTO `shard_ledger`", world.kill_worker, in_answer=True, times=4)
    run = world.start_run("0")

    with world.read():
        assert run.load_shards()[0].error_class == "killed"
        assert run.confirm().error_class == "ShardsNotPublished"
        world.expect(published=[])
        assert run.clear(0, STAGES[STAGES.index(task) :]).state == "success"
        assert run.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="A load that failed for good is cleared, and killed when it has {done} again",
    promised="the next try goes on from what was fetched; the shard is in",
)
@pytest.mark.parametrize(("events", "done"), [(2, "fetched"), (4, "converted"), (5, "loaded")])
def test_killed_while_staging_again(world: World, events: int, done: str) -> None:
    world.write_shards(ROWS)
    run = world.start_run("0")
    assert run.load_shard(0, STAGES[:2]).state == "success"
    shutil.rmtree(world.staging)
    killed = world.during("load_shard", LEDGER, world.kill_worker, skip=events)

    with world.read():
        assert run.clear(0, STAGES[2:]).state == "success"
        assert killed.fired.is_set()
        assert run.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="A load that failed for good is cleared while another run has filled the staging area",
    promised="it waits, as a download does, until there is room; the shard is in",
)
def test_no_room_to_stage_again(world: World) -> None:
    world.write_shards(*[300] * 5)
    run, other = world.start_run("4"), world.start_run("0-3")
    assert run.load_shard(0, STAGES[:2]).state == "success"
    shutil.rmtree(world.staging)
    parquet = run.values["convert_shard", 0]
    assert [other.load_shard(index, STAGES[:1]).state for index in range(4)] == ["success"] * 4

    assert run.attempt("load_shard", parquet, 0).state == "up_for_reschedule"
    world.tell("the load waits")
    assert [other.load_shard(index, STAGES[1:]).state for index in range(4)] == ["success"] * 4
    assert run.clear(0, STAGES[2:]).state == "success"

    world.expect(published=[0, 1, 2, 3, 4])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Every try of {task} is killed", promised="nothing visible; `missing` loads the shard"
)
@pytest.mark.parametrize("task", STAGES)
def test_killed_for_good(world: World, task: str) -> None:
    world.write_shards(ROWS, 400)
    world.during(task, b"INSERT INTO `shard_ledger`", world.kill_worker, in_answer=True, times=4)
    run = world.start_run("0")

    with world.read():
        assert run.load_shards()[0].error_class == "killed"
        assert run.confirm().error_class == "ShardsNotPublished"
        world.expect(published=[])
        repair = world.start_run("missing")
        assert repair.load_shards()[0].state == "success"
        assert repair.confirm().state == "success"
    world.expect(published=[0])


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="A run with as many shards staged as may be in flight is marked failed in the UI",
    promised="the next run does not wait for the six hours after which files are swept",
)
def test_places_of_a_run_marked_failed(world: World) -> None:
    world.write_shards(*[300] * 5)
    run = world.start_run("0-3")
    assert [run.load_shard(index, STAGES[:1]).state for index in range(4)] == ["success"] * 4
    waiting = world.start_run("4")
    assert waiting.attempt("download_shard", waiting.specs[0], 0).state == "up_for_reschedule"
    world.run_states[run.run_id] = "failed"

    assert waiting.load_shards()[0].state == "success"

    world.expect(published=[4])
