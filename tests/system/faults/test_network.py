"""Lines between worker and source, and between worker and ClickHouse: cut, slow, silent."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from tests.system.faults.proxy import FaultProxy, Passage
from tests.system.faults.test_points import INSERT, INSERT_BYTES, LEDGER
from tests.system.faults.world import ROWS, World

FILE_BYTES = ROWS * 64 * 2
LONG_S = 60
"""Longer than anybody waits here."""


def name(world: World) -> bytes:
    """Return the folder of the world's files at the source."""
    return world.source.name.encode()


def load_well(world: World) -> None:
    """Load a shard; the run must succeed and everything be right."""
    world.write_shards(ROWS)
    run = world.start_run("0")
    with world.read():
        assert run.load_shards()[0].state == "success"
        assert run.confirm().state == "success"
    world.expect(published=[0])


def refuse_for(proxy: FaultProxy, seconds: float) -> None:
    """Be unreachable for a while."""
    proxy.down = True
    proxy.cut_all()
    threading.Timer(seconds, functools.partial(setattr, proxy, "down", False)).start()


class TestSource:
    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="SIGKILL of download_shard at {fraction} of a file",
        promised="the next try goes on from that byte",
    )
    @pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
    def test_worker_killed(self, world: World, fraction: float) -> None:
        at = int(fraction * FILE_BYTES)
        pattern = b"GET /" + name(world) + b"/text_emb"
        rule = world.downloading(pattern, world.kill_worker, after=at, in_answer=True)

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="Connection to the source reset at {fraction} of a file",
        promised="the same try goes on from that byte",
    )
    @pytest.mark.parametrize("fraction", [0.0, 0.5, 0.95])
    def test_reset(self, world: World, fraction: float) -> None:
        at = int(fraction * FILE_BYTES)
        rule = world.downloading(
            b"GET /" + name(world) + b"/img_emb", world.cut, after=at, in_answer=True
        )

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.scenario(
        done="The source falls silent at half of a file",
        promised="after LAION_READ_TIMEOUT_S the same try goes on from that byte",
    )
    def test_silence(self, world: World) -> None:
        rule = world.downloading(
            b"GET /" + name(world) + b"/text_emb",
            lambda passage: passage.stall(LONG_S),
            after=FILE_BYTES // 2,
            in_answer=True,
        )

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="Every connection to the source is reset after 90 KB, four times",
        promised="each brings something new, so the same try goes on to the end",
    )
    def test_many_resets(self, world: World) -> None:
        rule = world.downloading(
            b"GET /" + name(world) + b"/img_emb", world.cut, after=90_000, in_answer=True, times=4
        )

        load_well(world)

        assert rule.times == 0

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="Every piece from the source comes 30 ms late", promised="slower, and in"
    )
    def test_delay(self, world: World) -> None:
        world.mirror.delay_s = 0.03

        load_well(world)

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="The source refuses connections for two seconds in a download",
        promised="tries again by itself; the shard is in",
    )
    def test_outage(self, world: World) -> None:
        def fall(_: Passage) -> None:
            refuse_for(world.mirror, 2)

        rule = world.downloading(
            b"GET /" + name(world) + b"/img_emb", fall, after=1000, in_answer=True
        )

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="The source stays away for good, and is back later",
        promised="a typed error after the last try, one alert; `failed` then loads the shard",
    )
    def test_gone(self, world: World) -> None:
        world.write_shards(ROWS)
        run = world.start_run("0")
        world.mirror.down = True

        assert run.load_shards()[0].error_class == "SourceUnreachable"
        assert run.confirm().error_class == "ShardsNotPublished"

        world.expect(published=[])
        assert world.hook is not None
        assert len(world.hook.about("SourceUnreachable")) == 2  # The shard's alert and the digest.
        world.mirror.down = False
        repair = world.start_run("failed")
        assert repair.load_shards()[0].state == "success"
        world.expect(published=[0])


class TestClickHouse:
    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="Every piece to and from ClickHouse comes 10 ms late", promised="slower, and in"
    )
    def test_delay(self, world: World) -> None:
        world.clickhouse.delay_s = 0.01

        load_well(world)

    @pytest.mark.scenario(
        done="The line falls silent in the middle of an INSERT",
        promised="the task gives up after the connection's timeout and loads anew",
    )
    def test_silent_insert(self, world: World) -> None:
        rule = world.during(
            "load_shard", INSERT, lambda p: p.stall(LONG_S), after=INSERT_BYTES // 2
        )

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="The answer to {statement} never comes",
        promised="the task gives up after the connection's timeout; trying again does no harm",
    )
    @pytest.mark.parametrize("statement", ["the INSERT", "REPLACE PARTITION", "the publish event"])
    def test_lost_answer(self, world: World, statement: str) -> None:
        where = {
            "the INSERT": ("load_shard", INSERT, 0),
            "REPLACE PARTITION": ("validate_shard", b"REPLACE PART", 0),
            "the publish event": ("validate_shard", LEDGER, 2),
        }
        task, pattern, skip = where[statement]
        rule = world.during(task, pattern, lambda p: p.stall(LONG_S), in_answer=True, skip=skip)

        load_well(world)

        assert rule.fired.is_set()

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="ClickHouse refuses connections for a second when {task} begins",
        promised="tried again; the shard is in",
    )
    @pytest.mark.parametrize("task", ["download_shard", "load_shard", "validate_shard"])
    def test_outage(self, world: World, task: str) -> None:
        world.during(task, b"SELECT version()", lambda _: refuse_for(world.clickhouse, 1))

        load_well(world)

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="Two INSERTs in a row are cut in the middle", promised="the third try is in, once"
    )
    def test_cut_twice(self, world: World) -> None:
        world.during("load_shard", INSERT, world.cut, after=INSERT_BYTES // 2, times=2)

        load_well(world)

    @pytest.mark.slow_fault
    @pytest.mark.scenario(
        done="ClickHouse stays away for good during load_shard, and is back later",
        promised="a typed error; nothing visible; one alert that says the ledger is down; "
        "`missing` then loads the shard",
    )
    def test_gone(self, world: World) -> None:
        world.write_shards(ROWS)
        run = world.start_run("0")
        with world.read():

            def fall(_: Passage) -> None:
                world.clickhouse.down = True
                world.clickhouse.cut_all()

            world.during("load_shard", INSERT, fall, after=INSERT_BYTES // 2)
            assert run.load_shards()[0].error_class == "ClickHouseUnreachable"
            assert world.hook is not None
            assert len(world.hook.messages) == 1
            time.sleep(0.2)
            world.clickhouse.down = False
            assert run.confirm().error_class == "ShardsNotPublished"
            world.expect(published=[])
            repair = world.start_run("missing")
            assert repair.load_shards()[0].state == "success"
        world.expect(published=[0])
