"""Base tables that their owners have altered, and the tables that are made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.client import ClickHouseError, typed_errors
from laion.clickhouse.derived import check_publishable, drop_derived, make_staging_table
from laion.clickhouse.schema import column_types, table_exists
from laion.errors import TableMismatch
from tests.embedded_server import EmbeddedServer
from tests.shard_files import DIMENSION, ROWS, VECTORS, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, build_search, make_tables, publish_files

STAGING = f"{TABLE}_staging_0_aaaa0001"
OWNERS_INDEX = (
    "ADD INDEX image_index image_embedding "
    f"TYPE vector_similarity('hnsw', 'L2Distance', {DIMENSION})"
)
ALTERATIONS = {
    "an index": OWNERS_INDEX,
    "a projection": "ADD PROJECTION by_url (SELECT id, url ORDER BY url)",
    "a constraint": "ADD CONSTRAINT safe CHECK NSFW = 'UNLIKELY'",
    "columns": "ADD COLUMN host String DEFAULT domain(url), ADD COLUMN `a b` UInt8 MATERIALIZED 1",
    "another order": "ADD COLUMN rank UInt8, MODIFY ORDER BY (id, rank)",
    "types that hold the same": "MODIFY COLUMN LICENSE LowCardinality(Nullable(String)), "
    "MODIFY COLUMN width UInt64, MODIFY COLUMN similarity Float64, MODIFY COLUMN NSFW "
    "Enum8('' = 0, 'UNLIKELY' = 1, 'UNSURE' = 2, 'NSFW' = 3)",
    "odd names": 'ADD COLUMN `"x"` UInt8, ADD COLUMN `\\`y\\\\` UInt8',
    "a nested column": "ADD COLUMN n Nested(a UInt8, b String)",
    "a codec that is seldom right": "MODIFY COLUMN width UInt32 CODEC(Delta)",
}


@pytest.fixture
def base(client: Client) -> Client:
    make_tables(client)
    return client


def alter(client: Client, what: str) -> None:
    allowed = {"allow_suspicious_codecs": 1, "flatten_nested": 0}
    client.command(f"ALTER TABLE {TABLE} {what}", settings=allowed)


def created(client: Client, table: str) -> str:
    return str(client.query(f"SHOW CREATE TABLE {table}").result_rows[0][0])


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_shards_are_published_and_indexed_whatever_its_owner_added(
    base: Client, shard_directory: Path, tmp_path: Path, alteration: str
) -> None:
    alter(base, ALTERATIONS[alteration])
    write_little_shard(shard_directory)

    check_publishable(base, TABLE, VECTORS)
    publish_files(base, shard_directory, 0, tmp_path)
    build_search(base)

    assert base.command(f"SELECT count() FROM {TABLE}") == ROWS
    assert base.command(f"SELECT count() FROM {TABLE}_search") == ROWS


def test_a_staging_table_has_the_columns_and_none_of_what_is_built_from_them(base: Client) -> None:
    for what in ("an index", "a projection", "a constraint", "columns"):
        alter(base, ALTERATIONS[what])

    make_staging_table(base, TABLE, STAGING)

    assert column_types(base, STAGING) == column_types(base, TABLE)
    text = created(base, STAGING)
    assert "`image_embedding` Array(Float32) CODEC(NONE)" in text
    assert "`host` String DEFAULT domain(url)" in text
    for word in ("INDEX", "PROJECTION", "CONSTRAINT"):
        assert word in created(base, TABLE)
        assert word not in text


def test_columns_of_the_owner_get_their_defaults(
    base: Client, shard_directory: Path, tmp_path: Path
) -> None:
    alter(base, "ADD COLUMN size UInt64 DEFAULT width * height")
    write_little_shard(shard_directory)

    publish_files(base, shard_directory, 0, tmp_path)

    assert base.command(f"SELECT countIf(size != width * height) FROM {TABLE}") == 0
    assert base.command(f"SELECT max(size) FROM {TABLE}") > 0


def staging_tables(client: Client) -> list[str]:
    rows = client.query(
        "SELECT name FROM system.tables "
        "WHERE database = currentDatabase() AND name LIKE '%staging%'"
    ).result_rows
    return [row[0] for row in rows]


class TestCheck:
    def test_a_table_as_it_was_made_passes_and_nothing_is_left(self, base: Client) -> None:
        check_publishable(base, TABLE, VECTORS)

        assert staging_tables(base) == []

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ("DROP COLUMN key", "it has no column key"),
            ("MODIFY COLUMN width UInt16", "column width is UInt16, which does not hold .*"),
            (
                "MODIFY COLUMN key String MATERIALIZED toString(id)",
                "column key is MATERIALIZED, .*",
            ),
            ("RENAME COLUMN key TO k, ADD COLUMN key String ALIAS k", "column key is ALIAS, .*"),
            (
                "MODIFY COLUMN image_embedding Array(Float64)",
                r"column image_embedding is Array\(Float64\), which does not hold .*",
            ),
        ],
    )
    def test_a_column_that_cannot_take_the_values_is_named(
        self, base: Client, what: str, message: str
    ) -> None:
        alter(base, what)

        with pytest.raises(TableMismatch, match=f"'little', which was altered: {message}\\."):
            check_publishable(base, TABLE, VECTORS)

    def test_what_the_server_refuses_is_told_in_its_words(self, base: Client) -> None:
        alter(base, OWNERS_INDEX)
        alter(base, "MODIFY SETTING enforce_index_structure_match_on_partition_manipulation = 1")

        with pytest.raises(TableMismatch, match="Tables have different secondary indices"):
            check_publishable(base, TABLE, VECTORS)
        assert staging_tables(base) == []


@pytest.fixture
def two_disks(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server with a policy `large` of a second disk."""
    server = EmbeddedServer(tmp_path / "clickhouse")
    config = server.path / "config.d" / "disks.xml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "<clickhouse><storage_configuration>"
        f"<disks><second><path>{server.path}/second/</path></second></disks>"
        "<policies><large><volumes><main><disk>second</disk></main></volumes></large></policies>"
        "</storage_configuration></clickhouse>"
    )
    with server:
        yield server


@pytest.mark.parametrize(
    "setting", ["storage_policy = 'large'", "disk = 'second'", "index_granularity_bytes = 0"]
)
def test_staging_and_search_table_are_stored_as_the_base_table_is(
    two_disks: EmbeddedServer, shard_directory: Path, tmp_path: Path, setting: str
) -> None:
    write_little_shard(shard_directory)
    with two_disks.client(autogenerate_session_id=False) as client:
        make_tables(client)
        text = created(client, TABLE).replace("SETTINGS", f"SETTINGS {setting},")
        client.command(f"DROP TABLE {TABLE} SYNC")
        client.command(text)

        check_publishable(client, TABLE, VECTORS)
        staged = publish_files(client, shard_directory, 0, tmp_path)
        drop_derived(client, staged.staging_table)
        build_search(client)

        disks = client.query(
            "SELECT DISTINCT `table`, disk_name FROM system.parts "
            f"WHERE active AND startsWith(`table`, '{TABLE}')"
        ).result_rows
    disk = "default" if "bytes" in setting else "second"
    assert set(disks) == {(TABLE, disk), (f"{TABLE}_search", disk)}


def test_a_table_larger_than_the_servers_limit_is_dropped(base: Client) -> None:
    make_staging_table(base, TABLE, STAGING)
    base.command(f"INSERT INTO {STAGING} (id) SELECT number FROM numbers(100)")
    base.set_client_setting("max_table_size_to_drop", 1)
    with pytest.raises(ClickHouseError, match="refused to drop it"), typed_errors("drop it"):
        base.command(f"DROP TABLE {STAGING} SYNC")

    drop_derived(base, STAGING)

    assert not table_exists(base, STAGING)


def test_a_limit_that_may_not_be_lifted_matters_only_where_it_is_in_the_way(
    tmp_path: Path,
) -> None:
    server = EmbeddedServer(tmp_path / "clickhouse")
    const = "<constraints><max_table_size_to_drop><const/></max_table_size_to_drop></constraints>"
    users = server.path / "users.d" / "const.xml"
    users.parent.mkdir(parents=True)
    users.write_text(f"<clickhouse><profiles><default>{const}</default></profiles></clickhouse>")
    with server, server.client(autogenerate_session_id=False) as client:
        make_tables(client)

        check_publishable(client, TABLE, VECTORS)

        assert staging_tables(client) == []
