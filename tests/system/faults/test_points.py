"""Every step of a shard's way, and at each: worker or ClickHouse killed, connection reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.system.faults.proxy import Passage
from tests.system.faults.world import ROWS, World

LEDGER = b"INSERT INTO `shard_ledger`"
INSERT = b"query=INSERT+INTO+%60faulty_staging"
INSERT_BYTES = ROWS * (2 * 64 * 2 + 100)
"""Less than what the shard's rows take on the wire."""
ANSWERED: dict[str, Any] = {"in_answer": True}


class Point(NamedTuple):
    """A place in a task: a request to ClickHouse, at a byte of it, or when it is answered."""

    task: str
    pattern: bytes
    where: dict[str, Any]


POINTS = {
    "plan, before the table is made": Point("plan", b"CREATE TABLE IF NOT EXISTS `faulty`", {}),
    "plan, when the shards are in the ledger": Point("plan", LEDGER, ANSWERED),
    "plan, before the run is in the ledger": Point("plan", b"INSERT INTO `ingest_runs`", {}),
    "plan, at its end": Point("plan", b"INSERT INTO `ingest_runs`", ANSWERED),
    "download_shard, at its start": Point("download_shard", LEDGER, {}),
    "download_shard, at its end": Point("download_shard", LEDGER, {"skip": 1, **ANSWERED}),
    "convert_shard, at its start": Point("convert_shard", LEDGER, ANSWERED),
    "convert_shard, at its end": Point("convert_shard", LEDGER, {"skip": 1}),
    "load_shard, before the old staging table goes": Point("load_shard", b"DROP TABLE IF", {}),
    "load_shard, with a new staging table": Point(
        "load_shard", b"CREATE TABLE `faulty_staging", ANSWERED
    ),
    "load_shard, INSERT at its first byte": Point("load_shard", INSERT, {}),
    "load_shard, INSERT half way": Point("load_shard", INSERT, {"after": INSERT_BYTES // 2}),
    "load_shard, INSERT near its end": Point("load_shard", INSERT, {"after": INSERT_BYTES}),
    "load_shard, INSERT answered": Point("load_shard", INSERT, ANSWERED),
    "load_shard, at its end": Point("load_shard", LEDGER, {"skip": 1}),
    "validate_shard, counting": Point("validate_shard", b"uniqExact(id)", {}),
    "validate_shard, asking for newer attempts": Point("validate_shard", b"is_published", {}),
    "validate_shard, before REPLACE PARTITION": Point("validate_shard", b"REPLACE PART", {}),
    "validate_shard, REPLACE PARTITION answered": Point(
        "validate_shard", b"REPLACE PART", ANSWERED
    ),
    "validate_shard, before the publication is in the ledger": Point(
        "validate_shard", LEDGER, {"skip": 2}
    ),
    "validate_shard, when the publication is in the ledger": Point(
        "validate_shard", LEDGER, {"skip": 2, **ANSWERED}
    ),
    "validate_shard, dropping the staging table": Point("validate_shard", b"DROP TABLE IF", {}),
    "validate_shard, at its end": Point("validate_shard", b"DROP TABLE IF", ANSWERED),
    "confirm_shards, before its word": Point("confirm_shards", b"INSERT INTO `run_ends`", {}),
}
IN_MAKE_TEST = (
    "load_shard, INSERT half way",
    "validate_shard, REPLACE PARTITION answered",
    "validate_shard, before the publication is in the ledger",
)

points = pytest.mark.parametrize(
    "point",
    [
        pytest.param(name, marks=[] if name in IN_MAKE_TEST else pytest.mark.slow_fault)
        for name in POINTS
    ],
)


def fault_at(point: str, world: World, action: Callable[[Passage], None]) -> None:
    """Load two shards past a fault, with a reader; then everything must be right."""
    world.write_shards(ROWS, 500)
    task, pattern, where = POINTS[point]
    rule = world.during(task, pattern, action, **where)

    run = world.start_run("0-1")
    with world.read():
        ended = run.load_shards()
        gate = run.confirm()

    assert rule.fired.is_set(), "the fault was never reached"
    assert [outcome.state for outcome in ended] == ["success"] * 2
    assert gate.state == "success"
    world.expect(published=[0, 1])


@pytest.mark.scenario(
    done="SIGKILL of the worker: {point}", promised="the task is tried again; every shard is in"
)
@points
def test_worker_killed(world: World, point: str) -> None:
    fault_at(point, world, world.kill_worker)


@pytest.mark.scenario(
    done="SIGKILL of ClickHouse: {point}", promised="the task is tried again; every shard is in"
)
@points
def test_server_killed(fragile: World, point: str) -> None:
    fault_at(point, fragile, fragile.crash_server)


@pytest.mark.scenario(
    done="Connection to ClickHouse reset: {point}",
    promised="the task is tried again; every shard is in, once",
)
@points
def test_connection_reset(world: World, point: str) -> None:
    fault_at(point, world, world.cut)


@pytest.mark.slow_fault
@pytest.mark.scenario(
    done="SIGTERM of the worker: {point}",
    promised="the task ends in its grace or is tried again; every shard is in",
)
@pytest.mark.parametrize(
    "point",
    [
        "download_shard, at its start",
        "convert_shard, at its start",
        "load_shard, INSERT half way",
        "validate_shard, before REPLACE PARTITION",
        "validate_shard, REPLACE PARTITION answered",
    ],
)
def test_worker_terminated(world: World, point: str) -> None:
    fault_at(point, world, world.terminate_worker)
