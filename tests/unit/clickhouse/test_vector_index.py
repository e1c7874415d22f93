from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.vector_index import (
    QUANTIZATIONS,
    IndexOptions,
    SearchTable,
    build_search_table,
)
from laion.convert import Rules
from laion.errors import BadRequest, ClickHouseError, TableMismatch
from tests.shard_files import DIMENSION, set_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, make_tables, publish_files

SHARDS = (0, 1, 2)
ROWS = 400
FEW_ROWS = 50
SEARCH = f"{TABLE}_search"
OPTIONS = IndexOptions(m=8, ef_construction=64, buckets=2)


@pytest.fixture
def small(client: Client, shard_directory: Path, tmp_path: Path) -> Client:
    """A base table of one little shard, without a search table."""
    make_tables(client)
    write_little_shard(shard_directory, 0, FEW_ROWS)
    publish_files(client, shard_directory, 0, tmp_path)
    return client


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards; two rows of shard 1 have an unusable vector."""
    directory = tmp_path_factory.mktemp("source")
    for shard in SHARDS:
        write_little_shard(directory, shard, ROWS)
    set_vectors(directory, "image_embedding", {3: np.nan}, shard=1)
    set_vectors(directory, "text_embedding", {4: 0.0}, shard=1)
    return directory


@pytest.fixture(scope="module")
def base(
    fresh_database: Callable[[], AbstractContextManager[Client]],
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """The base table of these shards, for tests that do not change it."""
    directory = tmp_path_factory.mktemp("staging")
    with fresh_database() as client:
        make_tables(client)
        for shard in SHARDS:
            publish_files(client, source, shard, directory, rules=Rules(max_bad_vectors=2))
        yield client


def build(
    client: Client,
    build_id: str = "cccc0001",
    dimension: int = DIMENSION,
    options: IndexOptions = OPTIONS,
) -> SearchTable:
    return build_search_table(client, TABLE, dimension, build_id, options)


def tables(client: Client) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows if SEARCH in row[0]}


@pytest.fixture(scope="module")
def built(base: Client) -> SearchTable:
    return build(base)


class TestBuild:
    def test_it_has_the_rows_with_usable_vectors_and_counts_the_others(
        self, base: Client, built: SearchTable
    ) -> None:
        assert (built.name, built.rows, built.left_out) == (SEARCH, 3 * ROWS - 2, 2)
        assert base.command(f"SELECT count() FROM {SEARCH}") == 3 * ROWS - 2

    def test_it_has_the_values_of_the_base_table(self, base: Client, built: SearchTable) -> None:
        # As text, because NaN is not equal to itself.
        columns = "* REPLACE (toString(similarity) AS similarity)"

        differing = base.command(
            f"SELECT count() FROM (SELECT {columns} FROM {SEARCH} "
            f"EXCEPT SELECT {columns} FROM {TABLE})"
        )

        assert differing == 0

    def test_it_has_one_indexed_part_for_each_bucket_of_shards(
        self, base: Client, built: SearchTable
    ) -> None:
        found = base.query(
            "SELECT partition, count(), min(secondary_indices_uncompressed_bytes) > 0 "
            "FROM system.parts WHERE active AND database = currentDatabase() "
            f"AND table = '{SEARCH}' GROUP BY partition ORDER BY partition"
        )

        assert built.buckets == 2
        assert found.result_rows == [("0", 1, 1), ("1", 1, 1)]

    def test_nothing_is_left_of_the_building(self, base: Client, built: SearchTable) -> None:
        assert tables(base) == {SEARCH}

    def test_it_takes_the_place_of_the_one_before(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        build(small)
        write_little_shard(shard_directory, 1, FEW_ROWS)
        publish_files(small, shard_directory, 1, tmp_path)

        build(small, "dddd0002")

        assert small.command(f"SELECT count() FROM {SEARCH}") == 2 * FEW_ROWS
        assert tables(small) == {SEARCH}

    def test_an_empty_base_table_gives_an_empty_one(self, client: Client) -> None:
        make_tables(client)

        built = build(client)

        assert (built.rows, built.left_out, built.buckets) == (0, 0, 0)

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_every_quantization_can_be_built(self, small: Client, quantization: str) -> None:
        built = build(small, options=replace(OPTIONS, quantization=quantization))

        assert built.rows == FEW_ROWS

    def test_the_other_metric_can_be_built(self, small: Client) -> None:
        built = build(small, options=replace(OPTIONS, metric="L2Distance"))

        assert built.rows == FEW_ROWS


class TestFailure:
    def test_the_search_table_in_use_stays_as_it_is(self, small: Client) -> None:
        build(small)

        with pytest.raises(ClickHouseError, match=f"build {SEARCH}_dddd0002"):
            build(small, "dddd0002", dimension=2 * DIMENSION)
        assert small.command(f"SELECT count() FROM {SEARCH}") == FEW_ROWS
        assert tables(small) == {SEARCH}

    def test_a_first_build_leaves_no_search_table(self, small: Client) -> None:
        with pytest.raises(ClickHouseError):
            build(small, dimension=2 * DIMENSION)
        assert tables(small) == set()

    def test_a_table_of_somebody_else_is_left_alone(self, small: Client) -> None:
        small.command(f"CREATE TABLE {SEARCH} (mine String) ENGINE = MergeTree ORDER BY mine")
        small.command(f"INSERT INTO {SEARCH} VALUES ('precious')")

        with pytest.raises(TableMismatch, match="is left alone"):
            build(small)
        assert small.command(f"SELECT mine FROM {SEARCH}") == "precious"

    def test_a_missing_base_table_is_typed(self, client: Client) -> None:
        with pytest.raises(ClickHouseError, match=TABLE):
            build(client)

    @pytest.mark.parametrize(
        ("options", "name"),
        [({"metric": "cosine"}, "index_metric"), ({"quantization": "i4"}, "index_quantization")],
    )
    def test_an_unknown_option_is_refused_with_the_params_name(
        self, options: dict[str, str], name: str
    ) -> None:
        with pytest.raises(BadRequest, match=name):
            IndexOptions(**options)
