"""ClickHouse's errors as this package's types. The client itself is clickhouse-connect's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError as DriverError
from clickhouse_connect.driver.exceptions import OperationalError
from urllib3.exceptions import HTTPError

from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.statements import statement
from laion.errors import (
    ClickHouseAuthFailed,
    ClickHouseBusy,
    ClickHouseDatabaseMissing,
    ClickHouseError,
    ClickHouseUnreachable,
    TableGone,
)

__all__ = [
    "DRIVER_ERRORS",
    "Client",
    "as_typed_error",
    "insert_rows",
    "insert_token",
    "read_rows",
    "typed_errors",
]

TOKEN_BYTES = 16

DRIVER_ERRORS = (DriverError, HTTPError, OSError)

AUTH_FAILED_CODES = frozenset({192, 193, 194, 516})
DATABASE_MISSING_CODES = frozenset({81})
TABLE_GONE_CODES = frozenset({60, 218})  # UNKNOWN_TABLE, TABLE_IS_DROPPED
ACCESS_DENIED_CODES = frozenset({497})
TOO_LARGE_TO_DROP_CODES = frozenset({359})  # TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT
BUSY_CODES = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED, as on shutdown
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        252,  # TOO_MANY_PARTS
        319,  # UNKNOWN_STATUS_OF_INSERT
        388,  # CANNOT_ASSIGN_OPTIMIZE: no thread for a merge
        999,  # KEEPER_EXCEPTION
    }
)


@contextmanager
def typed_errors(doing: str) -> Iterator[None]:
    """Turn errors of the driver inside the block into ClickHouseError types.

    `doing` completes the sentence "ClickHouse failed to …".
    """
    try:
        yield
    except DRIVER_ERRORS as error:
        raise as_typed_error(error, doing) from error


def read_rows(client: Client, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
    """Return what the statement `sql/<name>.sql` finds, each row by the names of its columns."""
    found = client.query(statement(name), parameters=parameters)
    return list(found.named_results())


def insert_rows(client: Client, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of equal columns, at once: JSON's types, numpy's numbers and datetimes in UTC.

    The driver's own insert imports pandas, 0.4 CPU seconds in every process, and asks the server
    for the table's structure first.
    """
    if not rows:
        return
    text = "\n".join(json.dumps(row, default=_as_json, ensure_ascii=False) for row in rows)
    client.raw_insert(
        quote_identifier(table),
        column_names=list(rows[0]),
        insert_block=text.encode(errors="replace"),
        fmt="JSONEachRow",
        settings={"async_insert": 0, **insert_token()},
    )


def insert_token() -> dict[str, str]:
    """Return the setting that makes an INSERT unlike every other one.

    Replicated tables drop a block that they have seen before, be it by accident: two equal rows of
    the ledger are two events. The driver sends the same token when it sends the same INSERT again.
    """
    return {"insert_deduplication_token": secrets.token_hex(TOKEN_BYTES)}


def as_typed_error(error: Exception, doing: str) -> ClickHouseError:
    """Return the type that an error of the driver or of the connection stands for."""
    code = getattr(error, "code", None)
    text = _first_line(error)
    if code in AUTH_FAILED_CODES:
        return ClickHouseAuthFailed(
            "ClickHouse refuses the user or password; check login and password of the Airflow "
            f"connection. It says: {text}"
        )
    if code in DATABASE_MISSING_CODES:
        return ClickHouseDatabaseMissing(
            "the database named as schema of the Airflow connection does not exist; create it or "
            f"correct the connection. ClickHouse says: {text}"
        )
    if code in ACCESS_DENIED_CODES:
        return ClickHouseAuthFailed(
            f"the user of the Airflow connection lacks a grant to {doing}: {text}"
        )
    if code in TOO_LARGE_TO_DROP_CODES:
        return ClickHouseError(
            f"ClickHouse refused to {doing}, because it drops no partition or table as large as "
            "what is replaced; raise the settings max_partition_size_to_drop and "
            "max_table_size_to_drop of the user of the Airflow connection (0 stands for no limit)"
        )
    if code in BUSY_CODES:
        return ClickHouseBusy(f"ClickHouse could not {doing} just now: {text}")
    if code is None and isinstance(error, (OperationalError, HTTPError, OSError)):
        return ClickHouseUnreachable(
            f"ClickHouse does not answer while asked to {doing}; check host, port and TLS of the "
            f"Airflow connection and that the server is up. {text}"
        )
    kind = TableGone if code in TABLE_GONE_CODES else ClickHouseError
    return kind(f"ClickHouse failed to {doing}: {text}")


def _as_json(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:1000]
