"""Builds of search tables that are cut off: by a crash of the server, by the death of the task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table.build import begin_build, build_bucket
from laion.clickhouse.search_table.kinds.hnsw import graphs
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from tests.embedded_server import EmbeddedServer, poll
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    build_search,
    make_tables,
    publish_files,
    shadow_of,
)

ROWS = 2500
"""Enough for the index of a shard to take some seconds."""
SEARCH = f"{TABLE}_search"
SLOW = IndexOptions(quantization="f32", buckets=1, parameters={"m": 64, "ef_construction": 1000})
QUICK = IndexOptions(buckets=1, parameters={"m": 8, "ef_construction": 16})

BUILD = """
import sys
import clickhouse_connect
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table.build import build_bucket
port, table, plan = sys.argv[1:]
client = clickhouse_connect.get_client(
    host="127.0.0.1", port=int(port), password="secret", autogenerate_session_id=False
)
builds = Builds(client, table, TaskOrigin("laion_ingest", "run_1"))
build_bucket(builds, BuildPlan.from_json(plan), 0)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of its own, to be killed, with a base table and a quickly built search table."""
    with EmbeddedServer(tmp_path / "server") as server:
        directory = tmp_path / "source"
        with server.client(autogenerate_session_id=False) as client:
            make_tables(client)
            write_little_shard(directory, 0, ROWS)
            publish_files(client, directory, 0, tmp_path)
            build_search(client, QUICK)
        yield server


def start_task(server: EmbeddedServer, plan: BuildPlan) -> subprocess.Popen[bytes]:
    """Build bucket 0 in a process of its own."""
    command = [sys.executable, "-c", BUILD, str(server.port), TABLE, plan.to_json()]
    return subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE)


def wait_for_mutation(client: Client, plan: BuildPlan) -> None:
    query = (
        "SELECT count() FROM system.merges WHERE is_mutation AND table = {t:String} "
        "AND elapsed > 0.2"
    )
    parameters = {"t": shadow_of(TABLE, plan)}
    poll(lambda: client.query(query, parameters=parameters).result_rows[0][0])


def begin(client: Client, builds: Builds) -> BuildPlan:
    begun = begin_build(builds, SLOW)
    assert not isinstance(begun, Holder)
    assert begun[1] == [0]
    return begun[0]


def start_build(
    server: EmbeddedServer, client: Client
) -> tuple[Builds, BuildPlan, subprocess.Popen[bytes]]:
    """Begin a build and let a task get as far as building the index."""
    builds = Builds(client, TABLE, ORIGIN)
    plan = begin(client, builds)
    task = start_task(server, plan)
    wait_for_mutation(client, plan)
    return builds, plan, task


def count(client: Client) -> int:
    """Search the table in use."""
    nearest = "ORDER BY cosineDistance(image_embedding, {v:Array(Float32)}) LIMIT 10"
    parameters = {"v": [0.25] * 16}
    found = client.query(f"SELECT id FROM {SEARCH} {nearest}", parameters=parameters).result_rows
    assert len(found) == 10
    return int(client.command(f"SELECT count() FROM {SEARCH}"))


def mutations(client: Client, plan: BuildPlan) -> set[str]:
    query = "SELECT mutation_id FROM system.mutations WHERE table = {t:String}"
    parameters = {"t": shadow_of(TABLE, plan)}
    return {row[0] for row in client.query(query, parameters=parameters).result_rows}


def test_a_killed_task_leaves_its_index_building_and_the_next_try_waits_for_it(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "PROGRESS_EVERY_S", 0)
    with server.client(autogenerate_session_id=False) as client:
        builds, plan, task = start_build(server, client)
        task.send_signal(signal.SIGKILL)
        task.communicate()
        assert count(client) == ROWS

        state = build_bucket(builds, plan, 0)

        assert (state.state, state.rows) == ("built", ROWS)
        assert len(mutations(client, plan)) == 1
        told = client.query(
            "SELECT progress FROM search_buckets WHERE build_id = {b:String} ORDER BY at",
            parameters={"b": plan.build_id},
        ).result_rows
        assert told == sorted(told)
        assert told[-1] == (1,)
        assert any(0 < share < 1 for (share,) in told)


def test_a_killed_server_comes_back_with_the_old_table_and_the_build_goes_on(
    server: EmbeddedServer,
) -> None:
    with server.client(autogenerate_session_id=False) as client:
        _, plan, task = start_build(server, client)
        server.kill()
        _, errors = task.communicate(timeout=60)
        assert task.returncode != 0
        assert b"ClickHouseUnreachable" in errors

    server.start()
    with server.client(autogenerate_session_id=False) as client:
        builds = Builds(client, TABLE, ORIGIN)
        assert count(client) == ROWS

        again = begin_build(builds, SLOW)
        assert again == (plan, [0])
        state = build_bucket(builds, plan, 0)

        assert (state.state, state.rows) == ("built", ROWS)
        assert state.index_bytes > 0
