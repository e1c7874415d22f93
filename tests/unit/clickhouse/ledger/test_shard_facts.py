"""What a base table holds, by the count of its readers."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger.shard_facts import rows_by_shard


def test_the_rows_of_a_table_are_counted_by_shard(client: Client) -> None:
    client.command(
        "CREATE TABLE t (shard UInt16) ENGINE = MergeTree PARTITION BY shard ORDER BY shard"
    )
    client.command("INSERT INTO t SELECT number % 3 FROM numbers(31)")

    assert rows_by_shard(client, "t") == {0: 11, 1: 10, 2: 10}
    assert rows_by_shard(client, "no_such_table") == {}


@pytest.mark.parametrize("statement", ["DELETE FROM t WHERE", "ALTER TABLE t DELETE WHERE"])
def test_deleted_rows_are_not_counted(client: Client, statement: str) -> None:
    client.command(
        "CREATE TABLE t (shard UInt16, id UInt64) ENGINE = MergeTree PARTITION BY shard ORDER BY id"
    )
    client.command("INSERT INTO t SELECT number % 3, number FROM numbers(30)")

    client.command(f"{statement} id IN (1, 4)", settings={"mutations_sync": 2})

    assert rows_by_shard(client, "t") == {0: 10, 1: 8, 2: 10}
