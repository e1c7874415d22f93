"""The index of a search table is the one that was planned, whole, and stays so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table.build import begin_build, build_bucket
from laion.clickhouse.search_table.kinds.hnsw.graphs import build_graphs, count_parts
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.recall import measure_recall
from laion.errors import ClickHouseBusy, IndexBuildFailed
from laion.monitor import check_index, check_recall
from tests.embedded_server import poll
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    OPTIONS,
    ORIGIN,
    QUERIES,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

ROWS = 50
SEARCH = f"{TABLE}_search"
OTHER_RUN = TaskOrigin("laion_ingest", "another run")
OWNERS = f"vector_similarity('hnsw', 'L2Distance', {DIMENSION}, 'f32', 8, 64)"


@pytest.fixture
def base(client: Client, shard_directory: Path, tmp_path: Path) -> Client:
    """A base table of four little shards, without a search table."""
    make_tables(client)
    for shard in range(4):
        write_little_shard(shard_directory, shard, ROWS)
        publish_files(client, shard_directory, shard, tmp_path)
    return client


def add_index(client: Client, table: str, kind: str = OWNERS) -> None:
    client.command(f"ALTER TABLE {table} ADD INDEX image_index image_embedding TYPE {kind}")


def indexes(client: Client, table: str = SEARCH) -> list[str]:
    return [
        row[0]
        for row in client.query(
            "SELECT type_full FROM system.data_skipping_indices "
            "WHERE database = currentDatabase() AND table = {t:String} ORDER BY name",
            parameters={"t": table},
        ).result_rows
    ]


class TestPlanned:
    def test_an_index_of_the_owner_does_not_take_its_place(self, base: Client) -> None:
        add_index(base, TABLE)

        plan = build_search(base, replace(OPTIONS, quantization="i8"))

        ours = f"vector_similarity('hnsw', 'cosineDistance', {DIMENSION}, 'i8', 8, 64)"
        assert indexes(base) == [ours, ours]
        assert plan.options.quantization == "i8"

    @pytest.mark.parametrize(
        "alterations",
        [
            ["DROP INDEX image_index", f"ADD INDEX image_index image_embedding TYPE {OWNERS}"],
            ["ADD INDEX by_host lower(url) TYPE bloom_filter GRANULARITY 4"],
            ["ADD PROJECTION by_url (SELECT id, url ORDER BY url)"],
            [
                "DROP INDEX image_index",
                "ADD INDEX image_index image_embedding TYPE vector_similarity('hnsw', "
                f"'cosineDistance', {DIMENSION}, 'bf16', 8, 64) GRANULARITY 4 FIRST",
            ],
        ],
    )
    def test_partitions_with_other_indexes_than_planned_are_built_again(
        self, base: Client, alterations: list[str]
    ) -> None:
        build_search(base)
        planned = indexes(base)
        for alteration in alterations:
            base.command(f"ALTER TABLE {SEARCH} {alteration}")

        begun = begin_build(Builds(base, TABLE, OTHER_RUN), OPTIONS)
        assert not isinstance(begun, Holder)
        assert begun[1] == [0, 1]
        build_search(base, origin=OTHER_RUN)
        assert indexes(base) == planned

    def test_a_build_whose_searches_read_every_row_is_not_accepted(self, base: Client) -> None:
        builds = Builds(base, TABLE, ORIGIN)
        begun = begin_build(builds, OPTIONS)
        assert not isinstance(begun, Holder)
        plan, buckets = begun
        shadow = f"{SEARCH}_{plan.build_id}"
        base.command(f"ALTER TABLE {shadow} DROP INDEX image_index")
        add_index(base, shadow)
        for bucket in buckets:
            build_bucket(builds, plan, bucket)

        with pytest.raises(
            IndexBuildFailed, match="image_embedding by cosineDistance does not use the index"
        ):
            measure_recall(builds, plan, target=0.0, queries=QUERIES, budget=10**9)
        assert builds.state(plan.build_id) == "planned"

    def test_the_monitor_finds_a_search_table_that_lost_its_index(self, base: Client) -> None:
        build_search(base)
        base.command(f"ALTER TABLE {SEARCH} DROP INDEX image_index")

        with pytest.raises(IndexBuildFailed, match="cosineDistance does not use the index"):
            check_recall(base, TABLE, queries=QUERIES, budget=10**9)


class TestWhole:
    def test_a_merge_that_the_server_does_not_do_is_no_silent_success(self, base: Client) -> None:
        # As a real shard does, each gives a part of its own, to be merged.
        for name in ("min_insert_block_size_rows", "min_insert_block_size_bytes"):
            base.set_client_setting(name, 1)
        builds = Builds(base, TABLE, ORIGIN)
        begun = begin_build(builds, OPTIONS)
        assert not isinstance(begun, Holder)
        plan = begun[0]
        shadow = f"{SEARCH}_{plan.build_id}"

        base.command(f"SYSTEM STOP MERGES {shadow}")
        with pytest.raises(ClickHouseBusy):
            build_bucket(builds, plan, 0)
        base.command(f"SYSTEM START MERGES {shadow}")

        assert build_bucket(builds, plan, 0).rows == 2 * ROWS
        assert not count_parts(base, shadow, 0).problem

    def test_a_bucket_of_several_graphs_is_not_built(
        self, base: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        builds = Builds(base, TABLE, ORIGIN)
        begun = begin_build(builds, OPTIONS)
        assert not isinstance(begun, Holder)
        plan = begun[0]
        shadow = f"{SEARCH}_{plan.build_id}"

        def write_behind(*arguments: object) -> None:
            base.command(f"INSERT INTO {shadow} SELECT * FROM {TABLE} WHERE shard = 0")
            build_graphs(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(
            "laion.clickhouse.search_table.kinds.hnsw.graphs.build_graphs", write_behind
        )

        with pytest.raises(IndexBuildFailed, match="bucket 0 is 2 parts, 0 without an index"):
            build_bucket(builds, plan, 0)

    def test_rows_that_somebody_adds_are_found_at_night_and_merge_nothing(
        self, base: Client
    ) -> None:
        build_search(base)
        assert check_index(base, TABLE) == []
        before = count_parts(base, SEARCH, 0)

        for _ in range(12):
            base.command(f"INSERT INTO {SEARCH} SELECT * FROM {TABLE} WHERE shard = 0")

        poll(lambda: not base.command("SELECT count() FROM system.merges"))
        assert count_parts(base, SEARCH, 0).parts == before.parts + 12
        (finding,) = check_index(base, TABLE)
        assert finding.summary.startswith(
            f"bucket 0 of {SEARCH} is not as it was built: 700 of 100 rows,"
        )
        assert finding.summary.endswith("it is 13 parts, 0 without an index")
        assert "build_index on for table little" in finding.remedy

    def test_a_bucket_of_several_parts_is_built_again(self, base: Client) -> None:
        build_search(base)
        base.command(f"INSERT INTO {SEARCH} SELECT * FROM {TABLE} WHERE shard = 0")

        begun = begin_build(Builds(base, TABLE, OTHER_RUN), OPTIONS)
        assert not isinstance(begun, Holder)
        assert begun[1] == [0]

    @pytest.mark.parametrize(
        ("damage", "bucket"),
        [
            (f"ALTER TABLE {SEARCH} CLEAR INDEX image_index IN PARTITION 0", 0),
            (f"ALTER TABLE {SEARCH} DROP PARTITION 1", 1),
            (f"DELETE FROM {SEARCH} WHERE id = 7", 0),
        ],
    )
    def test_a_bucket_that_lost_a_graph_or_rows_is_found_at_night_and_built_again(
        self, base: Client, damage: str, bucket: int
    ) -> None:
        build_search(base)

        base.command(damage, settings={"mutations_sync": 2})

        (finding,) = check_index(base, TABLE)
        assert finding.summary.startswith(f"bucket {bucket} of {SEARCH} is not as it was built")
        begun = begin_build(Builds(base, TABLE, OTHER_RUN), OPTIONS)
        assert not isinstance(begun, Holder)
        assert begun[1] == [bucket]
        build_search(base, origin=OTHER_RUN)
        assert check_index(base, TABLE) == []

    def test_rows_in_a_bucket_that_nobody_built_are_found_at_night(self, base: Client) -> None:
        build_search(base)

        base.command(
            f"INSERT INTO {SEARCH} (id, shard, image_embedding, text_embedding) "
            f"SELECT 1, 99, image_embedding, text_embedding FROM {TABLE} LIMIT 1"
        )

        (finding,) = check_index(base, TABLE)
        assert finding.summary == f"{SEARCH} has 1 rows in buckets that no build made"
