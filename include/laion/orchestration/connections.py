"""Airflow connections as the plain clients that the library takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook

from laion.clickhouse.client import Client, typed_errors
from laion.settings import get_settings


@contextmanager
def clickhouse_client(conn_id: str = "") -> Iterator[Client]:
    """Yield a client of a connection, by default of the setting `LAION_CLICKHOUSE_CONN_ID`'s.

    Raises ClickHouseUnreachable, ClickHouseAuthFailed, ClickHouseDatabaseMissing.
    """
    client = connect(conn_id or get_settings().clickhouse_conn_id)
    try:
        yield client
    finally:
        client.close()


def connect(conn_id: str, query_settings: Mapping[str, Any] | None = None) -> Client:
    """Return a client of a connection, which the caller closes; its queries have these settings.

    Requests of one client may overlap. Raises as `clickhouse_client` does.
    """
    hook = ClickHouseHook(
        clickhouse_conn_id=conn_id,
        session_settings=dict(query_settings or {}),
        # Without a session, requests of one client may overlap and nothing outlives a request.
        client_kwargs={"autogenerate_session_id": False},
    )
    with typed_errors("accept the connection"):
        return hook.get_client()
