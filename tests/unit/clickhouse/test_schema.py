from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import (
    LEDGER,
    TableIdentity,
    ensure_base_table,
    ensure_ledger,
    read_identity,
)
from laion.errors import TableMismatch
from tests.unit.clickhouse.shard_steps import IDENTITY

COLUMNS = {
    "id": "Int64",
    "url": "String",
    "caption": "String",
    "NSFW": "String",
    "similarity": "Float32",
    "image_embedding": "Array(Float32)",
    "text_embedding": "Array(Float32)",
    "shard": "UInt16",
    "LICENSE": "String",
    "width": "UInt32",
    "height": "UInt32",
    "original_width": "UInt32",
    "original_height": "UInt32",
    "key": "String",
}


def definition(client: Client, table: str) -> str:
    return str(client.command(f"SHOW CREATE TABLE {table}"))


def test_the_base_table_has_the_tutorials_columns_and_ours(client: Client) -> None:
    ensure_base_table(client, "hold", IDENTITY)

    rows = client.query("DESCRIBE TABLE hold").result_rows
    assert {row[0]: row[1] for row in rows} == COLUMNS


def test_the_base_table_has_a_partition_for_each_shard(client: Client) -> None:
    ensure_base_table(client, "hold", IDENTITY)

    keys = client.query(
        "SELECT partition_key, sorting_key FROM system.tables "
        "WHERE database = currentDatabase() AND name = 'hold'"
    )
    assert keys.result_rows == [("shard", "id")]


def test_the_base_table_remembers_what_it_is_for(client: Client) -> None:
    ensure_base_table(client, "hold", IDENTITY)

    assert read_identity(client, "hold") == IDENTITY


def test_a_name_with_quotes_is_remembered(client: Client) -> None:
    identity = TableIdentity('it\'s "mine" \\ é', 16)

    ensure_base_table(client, "hold", identity)

    assert read_identity(client, "hold") == identity


def test_an_existing_table_for_the_same_data_is_kept_with_its_rows(client: Client) -> None:
    ensure_base_table(client, "hold", IDENTITY)
    client.command("INSERT INTO hold (id) VALUES (1)")

    ensure_base_table(client, "hold", IDENTITY)

    assert client.command("SELECT count() FROM hold") == 1


FOREIGN_TABLES = {
    "no comment": "CREATE TABLE hold (a UInt8) ENGINE = MergeTree ORDER BY a",
    "a comment of words": "CREATE TABLE hold (a UInt8) ENGINE = Memory COMMENT 'my cats'",
    "another json": "CREATE TABLE hold (a UInt8) ENGINE = Memory COMMENT '{\"laion\": []}'",
    "a number": "CREATE TABLE hold (a UInt8) ENGINE = Memory COMMENT '7'",
    "a view": "CREATE VIEW hold AS SELECT 1 AS a",
}


@pytest.mark.parametrize("statement", FOREIGN_TABLES.values(), ids=FOREIGN_TABLES)
def test_a_table_that_is_not_ours_is_refused_and_left_as_it_is(
    client: Client, statement: str
) -> None:
    client.command(statement)
    before = definition(client, "hold")

    with pytest.raises(TableMismatch, match=r"'hold' .*left alone.*param `table`"):
        ensure_base_table(client, "hold", IDENTITY)
    assert definition(client, "hold") == before


@pytest.mark.parametrize(
    "other",
    [
        TableIdentity("laion400m", IDENTITY.dimension),
        TableIdentity(IDENTITY.dataset, 512),
        TableIdentity(IDENTITY.dataset, IDENTITY.dimension, format_version=2),
    ],
    ids=["dataset", "dimension", "format"],
)
def test_a_table_for_other_data_is_refused_and_left_as_it_is(
    client: Client, other: TableIdentity
) -> None:
    ensure_base_table(client, "hold", other)
    client.command("INSERT INTO hold (id) VALUES (1)")
    before = definition(client, "hold")

    with pytest.raises(TableMismatch, match=f"{other.dataset}.*{other.dimension}.*param `table`"):
        ensure_base_table(client, "hold", IDENTITY)
    assert definition(client, "hold") == before
    assert client.command("SELECT count() FROM hold") == 1


def test_a_table_that_is_not_there_has_no_identity(client: Client) -> None:
    with pytest.raises(TableMismatch, match="there is no table 'hold'"):
        read_identity(client, "hold")


def test_the_ledger_can_be_made_again(client: Client) -> None:
    ensure_ledger(client)
    ensure_ledger(client)

    names = {row[0] for row in client.query("SHOW TABLES").result_rows}
    made = {name.removeprefix("create_") for name in LEDGER}
    assert names == {"schema_version", "shard_status", *made}


def test_the_ledgers_view_is_replaced_only_when_another_release_has_made_it(
    client: Client,
) -> None:
    """While it is replaced, a reader may be told that there is none."""

    def view() -> str:
        query = "SELECT toString(uuid) FROM system.tables WHERE name = 'shard_status'"
        return str(client.command(f"{query} AND database = currentDatabase()"))

    ensure_ledger(client)
    first = view()
    ensure_ledger(client)
    assert view() == first

    client.command("CREATE OR REPLACE VIEW shard_status AS SELECT 1 AS x")
    ensure_ledger(client)

    assert client.command("SELECT count() FROM shard_status WHERE is_published") == 0
    kept = view()
    ensure_ledger(client)
    assert view() == kept
