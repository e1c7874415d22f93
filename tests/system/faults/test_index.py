"""The search table under the same faults: searches go on, and the next table is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.system.faults import checker
from tests.system.faults.proxy import Passage, sleeping
from tests.system.faults.world import TABLE, Run, World

SEARCH = f"{TABLE}_search"
ANSWERED: dict[str, Any] = {"in_answer": True}
TASKS = ("plan_index", "build_index", "measure_recall", "publish_index")
ROWS = (1200, 800)
MORE_ROWS = (1500, 800)


class Point(NamedTuple):
    task: str
    pattern: bytes
    where: dict[str, Any]


POINTS = {
    "plan_index, before the lease": Point("plan_index", b"INSERT INTO `search_builds`", {}),
    "plan_index, before the table is made": Point("plan_index", b"CREATE TABLE IF NOT", {}),
    "plan_index, at its end": Point("plan_index", b"INSERT INTO `search_builds`", ANSWERED),
    "build_index, before the rows are copied": Point("build_index", b"INSERT INTO `faulty_s", {}),
    "build_index, when the rows are copied": Point(
        "build_index", b"INSERT INTO `faulty_s", ANSWERED
    ),
    "build_index, before MATERIALIZE INDEX": Point("build_index", b"MATERIALIZE INDEX", {}),
    "build_index, MATERIALIZE INDEX answered": Point("build_index", b"MATERIALIZE INDEX", ANSWERED),
    "measure_recall, at its first query": Point("measure_recall", b"cosineDistance", {}),
    "publish_index, before EXCHANGE TABLES": Point("publish_index", b"EXCHANGE TABLES", {}),
    "publish_index, EXCHANGE TABLES answered": Point("publish_index", b"EXCHANGE TABLES", ANSWERED),
    "publish_index, before the old table goes": Point("publish_index", b"DROP TABLE", {}),
}
FAST = ("build_index, MATERIALIZE INDEX answered",)
points = pytest.mark.parametrize(
    "point",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow_fault) for name in POINTS],
)


def build(run: Run) -> str:
    """Run the tasks that build the search table; return how the last one ended."""
    planned = run.run_task("plan_index")
    if planned.state != "success":
        return planned.state
    for bucket in planned.value:
        ended = run.run_task("build_index", bucket, bucket)
        if ended.state != "success":
            return ended.state
    for task in TASKS[2:]:
        ended = run.run_task(task)
        if ended.state != "success":
            return ended.state
    return "success"


def counts(world: World) -> list[int]:
    """Return the rows of each shard in the search table."""
    found = world.direct.rows(f"SELECT shard, count() FROM {SEARCH} GROUP BY shard ORDER BY shard")
    return [int(rows) for _, rows in found]


def load_and_build(world: World, *rows: int, seed: int = 1) -> tuple[Run, str]:
    world.write_shards(*rows, seed=seed)
    run = world.start_run(f"0-{len(rows) - 1}", build_index=True)
    assert {outcome.state for outcome in run.load_shards()} == {"success"}
    assert run.confirm().state == "success"
    return run, build(run)


def fault_at(point: str, world: World, action: Callable[[Passage], None]) -> None:
    """Build once; load a shard anew and build past a fault, while a reader counts."""
    assert load_and_build(world, *ROWS)[1] == "success"
    world.verify([0, 1])
    task, pattern, where = POINTS[point]
    with world.read(SEARCH) as reader:
        rule = world.during(task, pattern, action, **where)
        _, ended = load_and_build(world, *MORE_ROWS, seed=2)
    world.readers.remove(reader)

    assert rule.fired.is_set(), "the fault was never reached"
    assert ended == "success"
    world.expect(published=[0, 1])
    assert counts(world) == list(MORE_ROWS)
    seen = {shard: [state[0] for state in states] for shard, states in reader.seen.items()}
    world.tell(f"{reader.reads} reads of the search table saw {seen}")
    assert reader.vanished == []
    assert set(seen[0]) <= {ROWS[0], MORE_ROWS[0]}
    assert set(seen[1]) == {ROWS[1]}
    indexed = world.direct.rows(
        "SELECT count() FROM system.data_skipping_indices WHERE database = currentDatabase() "
        f"AND table = '{SEARCH}' AND data_compressed_bytes = 0"
    )
    assert indexed == [["0"]]
    assert checker.left_tables(world.direct) == []


@pytest.mark.scenario(
    done="SIGKILL of the worker: {point}",
    promised="searches go on; the next try goes on with the build; the new table is whole",
)
@points
def test_worker_killed(world: World, point: str) -> None:
    fault_at(point, world, world.kill_worker)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse: {point}",
    promised="the old table is there afterwards; the next try goes on; the new table is whole",
)
@pytest.mark.parametrize("point", POINTS)
def test_server_killed(fragile: World, point: str) -> None:
    fault_at(point, fragile, fragile.crash_server)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse {after_s} s after MATERIALIZE INDEX was accepted",
    promised="the build goes on after the crash",
)
@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.3])
def test_server_killed_while_building(fragile: World, after_s: float) -> None:
    point = "build_index, MATERIALIZE INDEX answered"
    fault_at(point, fragile, sleeping(after_s, fragile.crash_server))


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Two runs build the same search table at once",
    promised="one builds, the other waits and then finds nothing to do",
)
def test_two_builds_at_once(world: World) -> None:
    load_and_build(world, *ROWS)
    second = world.start_run("", build_index=True)
    world.write_shards(*MORE_ROWS, seed=2)
    again = world.start_run("0-1", build_index=True)
    assert {outcome.state for outcome in again.load_shards()} == {"success"}
    buckets = again.run_task("plan_index").value

    assert second.attempt("plan_index").state == "up_for_reschedule"

    for bucket in buckets:
        assert again.run_task("build_index", bucket, bucket).state == "success"
    assert [again.run_task(task).state for task in TASKS[2:]] == ["success"] * 2
    assert build(second) == "success"
    assert counts(world) == list(MORE_ROWS)
    world.expect(published=[0, 1])
