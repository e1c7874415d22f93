"""The search table under the same faults: searches go on, and the next table is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from tests.system.faults import checker
from tests.system.faults.conftest import FILLER, fill_disk
from tests.system.faults.proxy import Passage, sleeping
from tests.system.faults.world import DIMENSION, TABLE, Run, World

SEARCH = f"{TABLE}_search"
VIEW = f"{TABLE}_near(q = [{', '.join(['1'] * DIMENSION)}], k = 100000)"
KINDS = {"hnsw": SEARCH, "quantized": VIEW, "ivf": VIEW}
"""Where the rows of a search table of each kind are counted."""
ANSWERED: dict[str, Any] = {"in_answer": True}
TASKS = ("plan_index", "build_index", "measure_recall", "publish_index")
ROWS = (1200, 800)
MORE_ROWS = (1500, 800)
MANY_ROWS = (20_000, 800)
LEFT = 2 << 20
"""Bytes that a full disk has left: enough for rows of the ledger, too few for MANY_ROWS."""


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
QUANTIZED_POINTS = {
    "plan_index, before the tables are made": Point("plan_index", b"CREATE TABLE IF NOT", {}),
    "build_index, before the codes are written": Point("build_index", b"INSERT INTO `faulty_s", {}),
    "build_index, when the codes are written": Point(
        "build_index", b"INSERT INTO `faulty_s", ANSWERED
    ),
    "measure_recall, between two queries": Point("measure_recall", b"use_quantized_codes = 1", {}),
    "publish_index, before the first view": Point("publish_index", b"OR REPLACE VIEW", {}),
    "publish_index, between two views": Point("publish_index", b"VIEW `faulty_near` ", {}),
    "publish_index, the last view answered": Point(
        "publish_index", b"VIEW `faulty_near` ", ANSWERED
    ),
    "publish_index, before the old tables go": Point("publish_index", b"DROP TABLE", {}),
}
IVF_POINTS = {
    "plan_index, before the lists are kept": Point("plan_index", b"TRUNCATE TABLE", ANSWERED),
    "build_index, before shards are assigned": Point("build_index", b"_assigned`", {}),
    "build_index, when rows are copied": Point("build_index", b"INNER JOIN", ANSWERED),
    "measure_recall, before the lists are measured": Point(
        "measure_recall", b"TRUNCATE TABLE", ANSWERED
    ),
    "publish_index, between two views": Point("publish_index", b"VIEW `faulty_near` ", {}),
}
CODES = [("quantized", name) for name in QUANTIZED_POINTS] + [("ivf", name) for name in IVF_POINTS]
CODES_POINTS = {"quantized": QUANTIZED_POINTS, "ivf": IVF_POINTS}
FAST = ("build_index, MATERIALIZE INDEX answered", "publish_index, between two views")


def points(names: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test for each point, all but those of FAST in the whole matrix only."""
    slow = pytest.mark.slow_fault
    marked = [pytest.param(name, marks=[] if name in FAST else slow) for name in names]
    return pytest.mark.parametrize("point", marked)


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


def counts(world: World, searched: str = SEARCH) -> list[int]:
    """Return the rows of each shard in the search table."""
    query = f"SELECT shard, count() FROM {searched} GROUP BY shard ORDER BY shard"
    return [int(rows) for _, rows in world.direct.rows(query)]


def asked_for(kind: str) -> dict[str, str]:
    return {"index_kind": kind, "index_quantization": "f32" if kind == "hnsw" else "auto"}


def load_and_build(world: World, *rows: int, seed: int = 1, kind: str = "hnsw") -> tuple[Run, str]:
    world.write_shards(*rows, seed=seed)
    run = world.start_run(f"0-{len(rows) - 1}", build_index=True, **asked_for(kind))
    assert {outcome.state for outcome in run.load_shards()} == {"success"}
    assert run.confirm().state == "success"
    return run, build(run)


def fault_at(
    point: Point, world: World, action: Callable[[Passage], None], kind: str = "hnsw"
) -> None:
    """Build once; load a shard again and build past a fault, while a reader counts."""
    searched = KINDS[kind]
    assert load_and_build(world, *ROWS, kind=kind)[1] == "success"
    world.verify([0, 1])
    with world.read(searched, "id, url, caption") as reader:
        rule = world.during(point.task, point.pattern, action, **point.where)
        _, ended = load_and_build(world, *MORE_ROWS, seed=2, kind=kind)
    world.readers.remove(reader)

    assert rule.fired.is_set(), "the fault was never reached"
    assert ended == "success"
    world.expect(published=[0, 1])
    assert counts(world, searched) == list(MORE_ROWS)
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
@points(POINTS)
def test_worker_killed(world: World, point: str) -> None:
    fault_at(POINTS[point], world, world.kill_worker)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse: {point}",
    promised="the old table is there afterwards; the next try goes on; the new table is whole",
)
@pytest.mark.parametrize("point", POINTS)
def test_server_killed(fragile: World, point: str) -> None:
    fault_at(POINTS[point], fragile, fragile.crash_server)


@pytest.mark.scenario(
    done="SIGKILL of the worker, search table of kind {kind}: {point}",
    promised="searches go on; the next try resumes the build; the new tables are whole",
)
@pytest.mark.parametrize(
    ("kind", "point"),
    [
        pytest.param(kind, name, marks=[] if name in FAST else pytest.mark.slow_fault)
        for kind, name in CODES
    ],
)
def test_worker_killed_at_codes(world: World, kind: str, point: str) -> None:
    fault_at(CODES_POINTS[kind][point], world, world.kill_worker, kind)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse, search table of kind {kind}: {point}",
    promised="the old tables answer afterwards; the next try resumes; the new tables are whole",
)
@pytest.mark.parametrize(("kind", "point"), CODES)
def test_server_killed_at_codes(fragile: World, kind: str, point: str) -> None:
    fault_at(CODES_POINTS[kind][point], fragile, fragile.crash_server, kind)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGKILL of ClickHouse {after_s} s after MATERIALIZE INDEX was accepted",
    promised="the build goes on after the crash",
)
@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.3])
def test_server_killed_while_building(fragile: World, after_s: float) -> None:
    point = POINTS["build_index, MATERIALIZE INDEX answered"]
    fault_at(point, fragile, sleeping(after_s, fragile.crash_server))


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="Two runs build the same search table of kind {kind} at once",
    promised="one builds, the other waits and then finds nothing to do",
)
@pytest.mark.parametrize("kind", KINDS)
def test_two_builds_at_once(world: World, kind: str) -> None:
    load_and_build(world, *ROWS, kind=kind)
    second = world.start_run("", build_index=True, **asked_for(kind))
    world.write_shards(*MORE_ROWS, seed=2)
    again = world.start_run("0-1", build_index=True, **asked_for(kind))
    assert {outcome.state for outcome in again.load_shards()} == {"success"}
    buckets = again.run_task("plan_index").value

    assert second.attempt("plan_index").state == "up_for_reschedule"

    for bucket in buckets:
        assert again.run_task("build_index", bucket, bucket).state == "success"
    assert [again.run_task(task).state for task in TASKS[2:]] == ["success"] * 2
    assert build(second) == "success"
    assert counts(world, KINDS[kind]) == list(MORE_ROWS)
    world.expect(published=[0, 1])
    assert checker.left_tables(world.direct) == []


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="The disk of ClickHouse fills up while a search table of kind {kind} is built",
    promised="a typed error; the old table answers; when there is room, a run builds the new one",
)
@pytest.mark.parametrize("kind", KINDS)
def test_disk_full(on_small_disk: World, kind: str) -> None:
    world = on_small_disk
    assert load_and_build(world, *ROWS, kind=kind)[1] == "success"

    def fill(_: Passage) -> None:
        fill_disk(world.server.path, LEFT)

    with world.read(KINDS[kind], "id, url, caption") as reader:
        rule = world.during("build_index", b"INSERT INTO `faulty_s", fill)
        _, ended = load_and_build(world, *MANY_ROWS, seed=2, kind=kind)
        (world.server.path / FILLER).unlink()
        assert rule.fired.is_set(), "the disk was never full"
        assert ended == "failed"
        failed = [line for line in world.told if "build_index failed for good" in line]
        assert failed == ["build_index failed for good: ClickHouseError"]
        assert counts(world, KINDS[kind]) == list(ROWS)

        again = world.start_run("", build_index=True, **asked_for(kind))
        assert build(again) == "success"
    world.readers.remove(reader)

    world.expect(published=[0, 1])
    assert counts(world, KINDS[kind]) == list(MANY_ROWS)
    assert reader.vanished == []
    assert checker.left_tables(world.direct) == []
