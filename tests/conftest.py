"""One real ClickHouse for all tests; the tables of a test live in a database of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from clickhouse_connect.driver.client import Client

from tests.embedded_server import EmbeddedServer
from tests.s3 import S3Server

FreshDatabase = Callable[[], AbstractContextManager[Client]]


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(scope="session")
def fresh_database(clickhouse_server: EmbeddedServer) -> Iterator[FreshDatabase]:
    """Opens a client of a new database for the length of a block, then drops the database."""
    with clickhouse_server.client(autogenerate_session_id=False) as admin:

        @contextmanager
        def open_database() -> Iterator[Client]:
            name = f"test_{uuid.uuid4().hex}"
            admin.command(f"CREATE DATABASE {name}")
            with clickhouse_server.client(database=name, autogenerate_session_id=False) as client:
                yield client
            admin.command(f"DROP DATABASE {name} SYNC")

        yield open_database


@pytest.fixture
def client(fresh_database: FreshDatabase) -> Iterator[Client]:
    """A client of a fresh database, which is dropped afterwards."""
    with fresh_database() as client:
        yield client


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server
