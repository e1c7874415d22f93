from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import (
    LEDGER,
    TableIdentity,
    ensure_base_table,
    ensure_ledger,
    read_identity,
    row_hash,
)
from laion.columns import COLUMNS as FIRST
from laion.columns import NUMBER, TEXT, Column
from laion.errors import TableMismatch
from laion.vectors import clip_dimensions
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
    identity = TableIdentity('it\'s "mine" \\ é', clip_dimensions(16))

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
        TableIdentity("laion400m", IDENTITY.vectors),
        TableIdentity(IDENTITY.dataset, clip_dimensions(512)),
        TableIdentity(IDENTITY.dataset, {"image_embedding": 16}),
        TableIdentity(IDENTITY.dataset, IDENTITY.vectors, format_version=2),
    ],
    ids=["dataset", "dimension", "vectors", "format"],
)
def test_a_table_for_other_data_is_refused_and_left_as_it_is(
    client: Client, other: TableIdentity
) -> None:
    ensure_base_table(client, "hold", other)
    client.command("INSERT INTO hold (id) VALUES (1)")
    before = definition(client, "hold")

    with pytest.raises(TableMismatch, match=f"{other.dataset}.*{other.shape}.*param `table`"):
        ensure_base_table(client, "hold", IDENTITY)
    assert definition(client, "hold") == before
    assert client.command("SELECT count() FROM hold") == 1


def test_a_table_of_an_earlier_format_gets_the_columns_that_came_later(client: Client) -> None:
    """Of a format before the first, in which a table had vectors alone."""
    before = replace(IDENTITY, format_version=0)
    client.command(
        "CREATE TABLE hold (id Int64, image_embedding Array(Float32), "
        "text_embedding Array(Float32), shard UInt16) ENGINE = MergeTree PARTITION BY shard "
        f"ORDER BY id COMMENT '{before.as_comment()}'"
    )
    client.command("INSERT INTO hold (id, shard) VALUES (1, 0)")

    ensure_base_table(client, "hold", IDENTITY)

    rows = client.query("DESCRIBE TABLE hold").result_rows
    assert {row[0]: row[1] for row in rows} == COLUMNS
    missing = client.query("SELECT id, url, similarity, width FROM hold").result_rows
    assert [(row[0], row[1], isnan(row[2]), row[3]) for row in missing] == [(1, "", True, 0)]
    ensure_base_table(client, "hold", IDENTITY)


class TestRowHash:
    LATER = (Column("tag", TEXT, since=2), Column("punsafe", NUMBER, since=2))

    def hash_of(self, client: Client, tag: str, punsafe: str, columns: Sequence[Column]) -> int:
        row = ", ".join(f"toUInt8({n}) AS {name}" for n, name in enumerate(COLUMNS))
        query = f"SELECT {row}, {tag} AS tag, toFloat32({punsafe}) AS punsafe"
        vectors = ("image_embedding", "text_embedding")
        return int(str(client.command(f"SELECT {row_hash(vectors, columns)} FROM ({query})")))

    def test_a_column_without_a_value_does_not_change_it(self, client: Client) -> None:
        with_later = self.hash_of(client, "''", "nan", (*FIRST, *self.LATER))

        assert with_later == self.hash_of(client, "''", "nan", FIRST)

    def test_a_value_in_any_column_changes_it(self, client: Client) -> None:
        columns = (*FIRST, *self.LATER)
        rows = [("''", "nan"), ("'a'", "nan"), ("'b'", "nan"), ("''", "0"), ("''", "0.5")]

        assert len({self.hash_of(client, *row, columns) for row in rows}) == len(rows)


@pytest.mark.parametrize("names", [["image_embedding"], ["image_embedding", "text_embedding"]])
def test_a_table_of_an_earlier_release_has_one_dimension_for_all(
    client: Client, names: list[str]
) -> None:
    identity = TableIdentity("little", dict.fromkeys(names, 16))
    ensure_base_table(client, "hold", identity)
    comment = '{"laion": {"dataset": "little", "dimension": 16, "format": 1}}'
    client.command(f"ALTER TABLE hold MODIFY COMMENT '{comment}'")

    assert read_identity(client, "hold") == identity
    ensure_base_table(client, "hold", identity)


def test_the_hash_of_the_first_format_is_as_it_was_when_shards_were_published() -> None:
    assert row_hash(("image_embedding", "text_embedding")).replace("`", "") == (
        "cityHash64(id, url, caption, NSFW, similarity, image_embedding, text_embedding, shard, "
        "LICENSE, width, height, original_width, original_height, key)"
    )


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
