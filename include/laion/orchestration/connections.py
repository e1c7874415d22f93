"""Airflow connections as the plain clients that the library takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from laion.clickhouse.client import Client, typed_errors
from laion.errors import BadSetting
from laion.s3 import S3Options
from laion.settings import get_settings

S3_EXTRAS = frozenset({"aws_session_token", "endpoint_url", "region_name"})
"""What is taken from the extra of a connection to S3, named as the Amazon provider names it."""


class _Hook(ClickHouseHook):
    """ClickHouse's hook, for another host than the connection's if one is given."""

    def __init__(self, *, host: str, **options: Any) -> None:
        super().__init__(**options)
        self._host = host

    def get_connection(self, conn_id: str) -> Connection:
        connection: Connection = copy(super().get_connection(conn_id))
        connection.host = self._host or connection.host
        return connection


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


def connect(
    conn_id: str, query_settings: Mapping[str, Any] | None = None, *, host: str = ""
) -> Client:
    """Return a client of a connection, which the caller closes; its queries have these settings.

    With `host`, it speaks to that host instead of the connection's. Requests of one client may
    overlap. Raises as `clickhouse_client` does.
    """
    hook = _Hook(
        host=host,
        clickhouse_conn_id=conn_id,
        session_settings=dict(query_settings or {}),
        # Without a session, requests of one client may overlap and nothing outlives a request.
        client_kwargs={"autogenerate_session_id": False},
    )
    with typed_errors("accept the connection"):
        return hook.get_client()


def read_s3_options(conn_id: str) -> S3Options:
    """Return what a connection of type `aws` says of S3; nothing when it does not exist.

    Login and password are access key and secret key. Raises BadSetting, naming what of the extra
    is not supported.
    """
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        return S3Options()
    extra = connection.extra_dejson
    if unknown := sorted({name for name, value in extra.items() if value} - S3_EXTRAS):
        raise BadSetting(
            f"the extra of connection {conn_id!r} has {', '.join(unknown)}; for S3, known are "
            f"{', '.join(sorted(S3_EXTRAS))}. For a role, leave login empty and give the role to "
            "the workers' machines"
        )
    return S3Options(
        key=connection.login or "",
        secret=connection.password or "",
        token=extra.get("aws_session_token", ""),
        endpoint_url=extra.get("endpoint_url", ""),
        region=extra.get("region_name", ""),
    )
