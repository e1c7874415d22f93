"""Unmodified clickhouse-connect against the embedded ClickHouse."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from ipaddress import IPv4Address

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.embedded_server import poll

UUID = uuid.UUID("61f0c404-5cb3-11e7-907b-a6006ad3dba0")


def test_a_query_returns_rows(client):
    assert client.query("SELECT number, toString(number) FROM numbers(3)").result_rows == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]


def test_a_query_without_rows_has_none(client):
    assert client.query("SELECT 1 AS a WHERE 0").result_rows == []
    assert client.query("SELECT 1 AS a LIMIT 0").column_names == ("a",)


def test_a_command_without_a_result_set_gives_a_summary(client):
    summary = client.command("CREATE TABLE t (a UInt8) ORDER BY a")

    assert summary.query_id()
    assert client.command("SELECT count() FROM t") == 0
    assert client.command("SHOW TABLES") == "t"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("UInt64", 2**64 - 1),
        ("String", "tab\t newline\n quote' back\\slash \\N \\t"),
        ("Array(String)", ["a'b", "c\td", "\\", ""]),
        ("Array(UInt8)", []),
        ("Date", date(2024, 2, 29)),
        ("DateTime64(3, 'UTC')", datetime(2024, 2, 29, 1, 2, 3, 456000)),
        ("Nullable(String)", None),
    ],
)
def test_a_parameter_arrives_as_it_was_given(client, kind, value):
    rows = client.query(f"SELECT {{x:{kind}}}", parameters={"x": value}).result_rows

    assert rows == [(value,)]


def test_a_long_parameter_goes_as_a_form(client):
    text = "it's\t" * 100_000

    assert client.query("SELECT {x:String}", parameters={"x": text}).result_rows == [(text,)]
    assert client.raw_query("SELECT length({x:String})", parameters={"x": text}) == b"500000\n"


def test_settings_of_a_query_are_in_force_for_it_alone(client):
    sql = "SELECT getSetting('max_block_size'), getSetting('log_comment')"
    before = client.query(sql, settings={"log_comment": "x"}).result_rows

    with_setting = client.query(sql, settings={"max_block_size": 7, "log_comment": "it's"})

    assert with_setting.result_rows == [(7, "it's")]
    assert client.query(sql, settings={"log_comment": "x"}).result_rows == before


def test_settings_of_a_client_are_in_force_for_all_its_queries(embedded):
    with embedded.client(settings={"max_block_size": 9}) as client:
        for _ in range(2):
            assert client.command("SELECT getSetting('max_block_size')") == 9
    with embedded.client() as client:
        assert client.command("SELECT getSetting('max_block_size')") != 9


def test_a_failed_setting_changes_nothing(client):
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT 1", settings={"max_block_size": 3, "max_threads": "many"})

    assert caught.value.code is not None
    assert client.command("SELECT getSetting('max_block_size')") != 3


def test_set_stays_in_force_in_its_session(client):
    client.command("SET max_block_size = 11", settings={"max_block_size": 5, "max_threads": 1})
    overridden = client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 6})

    assert overridden.result_rows == [(6,)]
    assert client.command("SELECT getSetting('max_block_size')") == 11


def test_a_session_keeps_temporary_tables(embedded, client):
    client.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.insert("mine", [[1], [2]], column_names=["a"], column_type_names=["UInt8"])

    assert client.command("SELECT sum(a) FROM mine") == 3
    with embedded.client() as other, pytest.raises(DatabaseError) as caught:
        other.command("SELECT sum(a) FROM mine")
    assert caught.value.name == "UNKNOWN_TABLE"


def test_a_failed_query_leaves_nothing_in_the_results_of_its_session(client):
    for _ in range(3):
        with pytest.raises(DatabaseError):
            client.raw_query(
                "SELECT throwIf(number = 3) FROM numbers(10) "
                "SETTINGS max_block_size = 1, max_threads = 1 FORMAT TSVWithNames"
            )
        assert client.raw_query("SELECT 1 AS a FORMAT TSVWithNames") == b"a\n1\n"


def test_data_frames_and_numpy_arrays(client):
    sql = "SELECT number AS n, toString(number) AS s FROM numbers(3)"

    assert client.query_df(sql)["s"].tolist() == ["0", "1", "2"]
    assert client.query_np(sql)["n"].tolist() == [0, 1, 2]
    assert client.query_arrow(sql).column("n").to_pylist() == [0, 1, 2]


def test_results_are_streamed(client):
    sql = "SELECT number AS n FROM numbers(300000)"

    with client.query_row_block_stream(sql) as blocks:
        sizes = [len(block) for block in blocks]
    with client.query_df_stream(sql) as frames:
        total = sum(int(frame["n"].sum()) for frame in frames)
    with client.query_arrow_stream(sql) as tables:
        rows = sum(table.num_rows for table in tables)

    assert len(sizes) > 1
    assert sum(sizes) == rows == 300000
    assert total == 300000 * 299999 // 2


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("toLowCardinality('a')", "a"),
        ("CAST(NULL AS LowCardinality(Nullable(String)))", None),
        ("CAST(NULL AS Nullable(UInt8))", None),
        ("[[1], []]::Array(Array(UInt8))", [[1], []]),
        ("map('k', [1.5])", {"k": [1.5]}),
        ("tuple(1, 'x')", (1, "x")),
        ("toDateTime64('2024-01-02 03:04:05.6', 3, 'UTC')", datetime(2024, 1, 2, 3, 4, 5, 600000)),
        ("toDecimal64('1.25', 4)", Decimal("1.2500")),
        ("toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", UUID),
        ("CAST('b' AS Enum8('a' = 1, 'b' = 2))", "b"),
        ("toIPv4('127.0.0.1')", IPv4Address("127.0.0.1")),
        ("toBFloat16(1.5)", 1.5),
        ("[toBFloat16(-2)]", [-2.0]),
        ("'é\\0'::FixedString(3)", "é\0".encode()),
        ("toDate('2024-02-29')", date(2024, 2, 29)),
        ("true", True),
    ],
)
def test_values_of_all_kinds_are_read(client, expression, expected):
    assert client.query(f"SELECT {expression}").result_rows == [(expected,)]


def test_low_cardinality_columns_of_many_blocks_are_read(client):
    sql = "SELECT toLowCardinality(toString(number % 7)) AS x FROM numbers(200000)"

    assert set(client.query(sql).result_columns[0]) == set("0123456")


@pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", False])
def test_compression_both_ways(embedded, database, vectors, method):
    with embedded.client(database=database, compress=method) as client:
        client.command("CREATE TABLE t (id UInt64, emb Array(Float32)) ORDER BY id")
        client.insert("t", [[i, [1.0]] for i in range(100_000)], column_names=["id", "emb"])
        result = client.query("SELECT id, emb FROM t ORDER BY id")

    assert len(result.result_rows) == 100_000
    assert result.result_rows[-1] == (99_999, [1.0])


@pytest.mark.parametrize(
    ("sql", "code", "name"),
    [
        ("SELECT * FROM missing", 60, "UNKNOWN_TABLE"),
        ("SELECT missing()", 46, "UNKNOWN_FUNCTION"),
        ("SELEC 1", 62, "SYNTAX_ERROR"),
        ("1 + 1", 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 62, "SYNTAX_ERROR"),
        ("INSERT INTO missing VALUES (1); SELECT 2", 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT 1 FORMAT Nope", 73, "UNKNOWN_FORMAT"),
        ("INSERT INTO missing FORMAT TSV\n1", 60, "UNKNOWN_TABLE"),
        ("INSERT INTO missing VALUES (1)", 60, "UNKNOWN_TABLE"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 48, "NOT_IMPLEMENTED"),
        ("SELECT {x:UInt8}", 456, "UNKNOWN_QUERY_PARAMETER"),
    ],
)
def test_an_error_has_code_and_name(client, sql, code, name):
    with pytest.raises(DatabaseError) as caught:
        client.raw_query(sql)

    assert (caught.value.code, caught.value.name) == (code, name)
    assert client.command("SELECT 1") == 1


FAILS_LATE = "SELECT throwIf(number = 500000), repeat('x', 100) FROM numbers(1000000)"


@pytest.mark.parametrize("compress", ["lz4", "zstd", False])
def test_an_error_in_mid_stream_is_raised_by_the_client(embedded, compress):
    with (
        embedded.client(compress=compress) as client,
        client.query_row_block_stream(FAILS_LATE, settings={"max_threads": 1}) as blocks,
        pytest.raises(StreamFailureError) as caught,
    ):
        for _ in blocks:
            pass

    assert caught.value.code == 395
    assert caught.value.name == "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"


def test_an_error_in_mid_stream_cuts_off_raw_data(client):
    stream = client.raw_stream(FAILS_LATE, fmt="TSV", settings={"max_threads": 1})

    with pytest.raises(Exception, match=r"Connection broken|IncompleteRead|prematurely"):
        stream.read()


def test_waiting_for_the_end_gives_an_error_its_own_status(client):
    with pytest.raises(DatabaseError) as caught:
        client.query(FAILS_LATE)

    assert caught.value.code == 395


def test_the_query_id_is_echoed_and_found_in_the_log(client):
    name = f"load-{uuid.uuid4()}"

    result = client.query("SELECT 1", settings={"query_id": name})

    client.command("SYSTEM FLUSH LOGS")
    logged = "SELECT query FROM system.query_log WHERE log_comment = {x:String} AND type = 2"
    assert result.query_id == name
    assert "SELECT 1" in client.command(logged, parameters={"x": name})


def test_queries_run_at_the_same_time(embedded):
    seen = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow(0.5)%overlap%'"

    def sleep() -> None:
        with embedded.client() as client:
            client.query(
                "SELECT sleepEachRow(0.5) /* overlap */ FROM numbers(1000) "
                "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0"
            )

    threads = [threading.Thread(target=_ignoring_errors, args=(sleep,)) for _ in range(4)]
    with embedded.client() as client:
        for thread in threads:
            thread.start()
        poll(lambda: client.command(seen + " AND NOT query LIKE '%system.processes%'") == 4)
        client.command("KILL QUERY WHERE query LIKE '%overlap%' AND query LIKE '%numbers(1000)%'")
        for thread in threads:
            thread.join()


def _ignoring_errors(do) -> None:
    with suppress(DatabaseError):
        do()


def test_wrong_credentials_are_refused(embedded):
    for wrong in ({"password": "wrong"}, {"password": ""}, {"username": "admin"}):
        with pytest.raises(DatabaseError) as caught:
            embedded.client(**wrong)
        assert (caught.value.code, caught.value.name) == (516, "AUTHENTICATION_FAILED")


def test_an_unknown_database_is_refused(embedded):
    with pytest.raises(DatabaseError) as caught:
        embedded.client(database="missing")

    assert (caught.value.code, caught.value.name) == (81, "UNKNOWN_DATABASE")


def test_external_data_are_refused(client):
    data = ExternalData(file_name="x", data=b"1\n", fmt="TSV", structure=["a UInt8"])

    with pytest.raises(DatabaseError, match="a ClickHouse server does it") as caught:
        client.query("SELECT * FROM x", external_data=data)

    assert caught.value.code == 48
