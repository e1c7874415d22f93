"""What ClickHouse's query log says of the queries of this package."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from laion.clickhouse.client import Client, read_rows, typed_errors

OWN_QUERY_PATTERN = r"^laion-[a-z]+-[A-Za-z0-9_-]{1,150}$"
"""Ids that this package gives. The queries of others are not shown."""
DAYS = 365
"""How far back the log is searched."""


@dataclass(frozen=True)
class LoggedQuery:
    """An entry of the query log; bytes and milliseconds."""

    type: str
    at_ms: int
    duration_ms: int
    read_rows: int
    read_bytes: int
    written_rows: int
    written_bytes: int
    memory: int
    user: str
    exception: str
    query: str

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


def read_logged_query(client: Client, query_id: str) -> list[LoggedQuery]:
    """Return the entries of a query, the newest first. Raises ClickHouseError."""
    parameters = {"id": query_id, "days": DAYS}
    with typed_errors("read the query log"):
        rows = read_rows(client, "logged_query", **parameters)
    return [LoggedQuery(**row) for row in rows]
