"""Airflow's official ClickHouse hook, unmodified, against the embedded ClickHouse."""

from __future__ import annotations

import json

import pytest
from airflow.providers.clickhousedb.hooks.clickhouse import ClickHouseHook


@pytest.fixture
def hook(embedded, database, monkeypatch) -> ClickHouseHook:
    connection = embedded.airflow_connection | {"schema": database}
    monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(connection))
    return ClickHouseHook()


def test_the_connection_test_passes(hook):
    assert hook.test_connection() == (True, "Connection successfully tested")


def test_records_are_read(hook):
    assert hook.get_records("SELECT number, 'x' FROM numbers(2)") == [(0, "x"), (1, "x")]
    assert hook.get_first("SELECT 42") == (42,)
    assert hook.get_records("SELECT %(a)s", parameters={"a": "it's"}) == [("it's",)]


def test_statements_run_one_after_the_other(hook):
    results = hook.run(
        [
            "CREATE TABLE t (a UInt8) ORDER BY a",
            "INSERT INTO t VALUES (1), (2)",
            "SELECT sum(a) FROM t",
        ],
        handler=lambda cursor: cursor.fetchall(),
    )

    assert results[-1] == [(3,)]


def test_rows_are_inserted(hook):
    hook.run("CREATE TABLE t (a UInt64, b String) ORDER BY a")

    hook.insert_rows("t", [(1, "it's"), (2, "b")], target_fields=["a", "b"])
    hook.bulk_insert_rows("t", [(3, "c"), (4, "d")], ["a", "b"], batch_size=1)

    assert hook.get_records("SELECT a, b FROM t ORDER BY a") == [
        (1, "it's"),
        (2, "b"),
        (3, "c"),
        (4, "d"),
    ]


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
def test_a_data_frame_is_read(hook):
    assert hook.get_df("SELECT number AS n FROM numbers(3)")["n"].tolist() == [0, 1, 2]
