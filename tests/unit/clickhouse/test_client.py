from __future__ import annotations

from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from laion.clickhouse.client import as_typed_error, typed_errors
from laion.errors import (
    ClickHouseAuthFailed,
    ClickHouseBusy,
    ClickHouseDatabaseMissing,
    ClickHouseError,
    ClickHouseUnreachable,
)
from tests.embedded_server import EmbeddedServer
from tests.unit.mirrors import unused_url


def ask(server: EmbeddedServer, **options: Any) -> None:
    with typed_errors("answer"), server.client(autogenerate_session_id=False, **options) as client:
        client.command("SELECT 1")


def test_a_wrong_password_is_typed(clickhouse_server: EmbeddedServer) -> None:
    with pytest.raises(ClickHouseAuthFailed, match="login and password of the Airflow connection"):
        ask(clickhouse_server, password="wrong")


def test_a_wrong_password_is_not_told(clickhouse_server: EmbeddedServer) -> None:
    with pytest.raises(ClickHouseAuthFailed) as caught:
        ask(clickhouse_server, password="s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_a_missing_database_is_typed_and_named(clickhouse_server: EmbeddedServer) -> None:
    with pytest.raises(ClickHouseDatabaseMissing, match=r"schema of the Airflow .*no_such_db"):
        ask(clickhouse_server, database="no_such_db")


def test_a_refused_connection_is_typed(clickhouse_server: EmbeddedServer) -> None:
    port = int(unused_url().rpartition(":")[2])

    with pytest.raises(ClickHouseUnreachable, match="check host, port and TLS"):
        ask(clickhouse_server, port=port)


def test_an_unknown_table_is_an_error_of_clickhouse_with_its_name(client: Client) -> None:
    with (
        pytest.raises(ClickHouseError, match=r"failed to count it.*no_such_table") as caught,
        typed_errors("count it"),
    ):
        client.command("SELECT count() FROM no_such_table")
    assert type(caught.value) is ClickHouseError
    assert not caught.value.retryable


def test_too_little_memory_is_worth_another_try(client: Client) -> None:
    with pytest.raises(ClickHouseBusy) as caught, typed_errors("sum it"):
        client.command(
            "SELECT groupArray(number) FROM numbers(1000000)",
            settings={"max_memory_usage": 1_000_000},
        )
    assert caught.value.retryable


def test_a_query_that_takes_too_long_is_worth_another_try(client: Client) -> None:
    with pytest.raises(ClickHouseBusy), typed_errors("count it"):
        client.command(
            "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1",
            settings={"max_execution_time": 0.1},
        )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (516, ClickHouseAuthFailed),
        (497, ClickHouseAuthFailed),
        (81, ClickHouseDatabaseMissing),
        (202, ClickHouseBusy),
        (252, ClickHouseBusy),
        (62, ClickHouseError),
    ],
)
def test_the_code_of_an_error_decides_its_type(code: int, kind: type[ClickHouseError]) -> None:
    error = DatabaseError("it says no")
    error.code = code

    assert type(as_typed_error(error, "answer")) is kind


def test_an_error_of_the_network_is_unreachable() -> None:
    assert type(as_typed_error(OSError("no route"), "answer")) is ClickHouseUnreachable


def test_an_error_without_text_is_told_by_its_name() -> None:
    assert "TimeoutError" in str(as_typed_error(TimeoutError(), "answer"))


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), typed_errors("answer"):
        raise KeyError("x")
