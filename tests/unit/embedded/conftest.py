"""One embedded ClickHouse for all tests here; tables of a test live in a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client

from tests.embedded_server import EmbeddedServer


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture
def database(embedded: EmbeddedServer) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with embedded.client() as client:
        client.command(f"CREATE DATABASE {name}")
        yield name
        client.command(f"DROP DATABASE {name}")


@pytest.fixture
def client(embedded: EmbeddedServer, database: str) -> Iterator[Client]:
    with embedded.client(database=database) as client:
        yield client


@pytest.fixture
def vectors() -> pa.Table:
    flat = pa.array(np.linspace(-1, 1, 4000, dtype="float32"))
    return pa.table(
        {
            "id": pa.array(np.arange(1000), pa.uint64()),
            "emb": pa.FixedSizeListArray.from_arrays(flat, 4).cast(pa.list_(pa.float32())),
        }
    )


@pytest.fixture
def table(client: Client) -> str:
    client.command("CREATE TABLE t (id UInt64, emb Array(Float32)) ORDER BY id")
    return "t"
