"""How the pages read ClickHouse: they only read, and no query of theirs is without limits."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from laion.clickhouse.client import typed_errors
from laion.errors import ClickHouseBusy
from laion.orchestration.pages import _SharedClient
from laion.settings import get_settings
from tests.embedded_server import EmbeddedServer


@pytest.fixture
def pages(
    clickhouse_server: EmbeddedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    """The client that the pages are lent, with a connection of their own."""
    connection = {**clickhouse_server.airflow_connection, "schema": client.database}
    monkeypatch.setenv("AIRFLOW_CONN_SEARCHER", json.dumps(connection))
    monkeypatch.setenv("LAION_PAGES_CONN_ID", "searcher")
    monkeypatch.setenv("LAION_PAGES_TIMEOUT_S", "0.5")
    monkeypatch.setenv("LAION_PAGES_MEMORY", "50MB")
    get_settings.cache_clear()
    with _SharedClient().lend() as client:
        yield client
    get_settings.cache_clear()


@pytest.mark.parametrize(
    "expensive",
    [
        "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1",
        "SELECT length(groupArray(number)) FROM numbers(100000000)",
    ],
    ids=["time", "memory"],
)
def test_a_query_that_takes_more_than_the_settings_allow_is_ended(
    pages: Client, expensive: str
) -> None:
    with pytest.raises(ClickHouseBusy, match=r"TIMEOUT_EXCEEDED|MEMORY_LIMIT"), typed_errors("ask"):
        pages.query(expensive)
    assert pages.command("SELECT 1") == 1


def test_nothing_is_written(pages: Client) -> None:
    with pytest.raises(DatabaseError, match="readonly"):
        pages.command("CREATE TABLE t (x UInt8) ENGINE = Memory")
