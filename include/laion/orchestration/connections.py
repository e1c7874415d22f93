"""Airflow connections as the plain clients that the library takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook

from laion.clickhouse.client import Client, typed_errors
from laion.settings import get_settings


@contextmanager
def clickhouse_client() -> Iterator[Client]:
    """Yield a client of the connection `clickhouse_default` (setting `LAION_CLICKHOUSE_CONN_ID`).

    Raises ClickHouseUnreachable, ClickHouseAuthFailed, ClickHouseDatabaseMissing.
    """
    hook = ClickHouseHook(
        clickhouse_conn_id=get_settings().clickhouse_conn_id,
        # Without a session, requests of one client may overlap and nothing outlives a request.
        client_kwargs={"autogenerate_session_id": False},
    )
    with typed_errors("accept the connection"):
        client = hook.get_client()
    try:
        yield client
    finally:
        client.close()
