"""A whole run by a ClickHouse user with the loader's grants only, which the engine enforces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.users import read_grants
from tests.dags.conftest import Run
from tests.embedded_server import EmbeddedServer
from tests.shard_files import write_little_shard


@pytest.fixture
def clickhouse_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """In place of the one that all tests share: its user is the loader of the database `laion`."""
    server = EmbeddedServer(tmp_path / "clickhouse")
    with server, server.client() as admin:
        admin.command("CREATE DATABASE laion")
    server.restrict(f"{what} ON {target}" for what, target in read_grants("loader", "laion"))
    with server:
        yield server


@pytest.fixture
def client(clickhouse_server: EmbeddedServer) -> Iterator[Client]:
    with clickhouse_server.client(database="laion", autogenerate_session_id=False) as client:
        yield client


HNSW = {"index_kind": "hnsw"}


def test_the_loaders_grants_are_enough(run_dag: Run, client: Client, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for shard, rows in enumerate((300, 200)):
        write_little_shard(source, shard, rows)

    done = run_dag({"shards": "0-1", "source": source.as_uri(), "build_index": True, **HNSW})

    assert "state=success" in done.stdout, done.stdout + done.stderr
    assert client.command("SELECT count() FROM clip_retrieval_search") == 500
    with pytest.raises(Exception, match="ACCESS_DENIED"):
        client.command("CREATE DATABASE other")
