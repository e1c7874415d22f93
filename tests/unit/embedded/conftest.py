"""One embedded ClickHouse for all tests here; tables of a test live in a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pyarrow as pa
import pytest
import requests
from clickhouse_connect.driver import Client

from tests.embedded_server import EmbeddedServer

PAUSE_S = 0.1
TIMEOUT_S = 60
"""Generous: an answer takes a few seconds, or for ever."""


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture
def http(embedded: EmbeddedServer) -> Iterator[requests.Session]:
    """Requests of the user."""
    with requests.Session() as session:
        session.auth = (embedded.user, embedded.password)
        yield session


@pytest.fixture
def sent(http: requests.Session) -> Iterator[Callable[..., Future[requests.Response]]]:
    """Sends a request without waiting for its answer."""
    with ThreadPoolExecutor(1) as threads:
        yield lambda *args, **kwargs: threads.submit(http.request, *args, **kwargs)


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


def assert_serves_others_during(server: EmbeddedServer, running: Future[requests.Response]) -> None:
    """Others are answered until `running` is."""
    while True:
        assert requests.get(f"{server.url}/ping", timeout=TIMEOUT_S).text == "Ok.\n"
        if wait([running], PAUSE_S).done:
            return
