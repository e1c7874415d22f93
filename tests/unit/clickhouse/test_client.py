from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from laion.clickhouse.client import as_typed_error, insert_rows, typed_errors
from laion.errors import (
    ClickHouseAuthFailed,
    ClickHouseBusy,
    ClickHouseDatabaseMissing,
    ClickHouseError,
    ClickHouseUnreachable,
    TableGone,
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
    assert type(caught.value) is TableGone
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


def test_a_partition_too_large_to_be_dropped_names_the_settings(client: Client) -> None:
    client.command("CREATE TABLE large (n UInt64) ENGINE = MergeTree ORDER BY n PARTITION BY n % 2")
    client.command("INSERT INTO large SELECT number FROM numbers(1000)")

    with (
        pytest.raises(ClickHouseError, match="raise the settings max_partition_size_to_drop"),
        typed_errors("publish it"),
    ):
        client.command(
            "ALTER TABLE large DROP PARTITION 1", settings={"max_partition_size_to_drop": 1}
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


class TestInsertRows:
    def test_every_value_arrives_as_it_is(self, client: Client) -> None:
        client.command(
            "CREATE TABLE t (s String, h UInt64, f Float64, b Bool, at DateTime64(6, 'UTC'), "
            "v Array(Float32)) ENGINE = MergeTree ORDER BY s"
        )
        at = datetime(2026, 1, 2, 3, 4, 5, 678901)
        row = {
            "s": "a\n'é'\t\\ \u2028\0",
            "h": 2**64 - 1,
            "f": 0.1,
            "b": True,
            "at": at,
            "v": [0.5],
        }

        insert_rows(client, "t", [row, {**row, "s": "\ud800", "f": np.float32(0.25)}])
        insert_rows(client, "t", [])

        found = client.query("SELECT * FROM t ORDER BY f").result_rows
        assert found == [tuple(row.values()), ("?", 2**64 - 1, 0.25, True, at, [0.5])]

    def test_a_process_that_inserts_and_asks_does_not_load_pandas(
        self, client: Client, clickhouse_server: EmbeddedServer
    ) -> None:
        client.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
        program = (
            "import sys, clickhouse_connect\n"
            "from laion.clickhouse.client import insert_rows\n"
            "client = clickhouse_connect.get_client(\n"
            "    host='127.0.0.1', port=int(sys.argv[1]), "
            "password=sys.argv[2], database=sys.argv[3]\n"
            ")\n"
            "insert_rows(client, 't', [{'a': 1}])\n"
            "client.command('SELECT 1')\n"
            "print(client.query('SELECT a FROM t').result_rows, 'pandas' in sys.modules)\n"
        )
        server = [str(clickhouse_server.port), clickhouse_server.password, str(client.database)]

        done = subprocess.run(
            [sys.executable, "-c", program, *server], capture_output=True, text=True, check=True
        )

        assert done.stdout.strip() == "[(1,)] False"
