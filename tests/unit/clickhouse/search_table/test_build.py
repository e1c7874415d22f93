from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table.build import (
    begin_build,
    build_bucket,
    publish_build,
)
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.convert import Rules
from laion.errors import (
    ClickHouseError,
    IndexBuildFailed,
    IndexBuildLost,
    IndexTooLarge,
    SearchTableInUse,
    TableMismatch,
)
from tests.shard_files import set_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    OPTIONS,
    ORIGIN,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

SHARDS = (0, 1, 2)
ROWS = 400
FEW_ROWS = 50
SEARCH = f"{TABLE}_search"
OTHER_RUN = TaskOrigin("laion_ingest", "another run")


@pytest.fixture
def small(client: Client, shard_directory: Path, tmp_path: Path) -> Client:
    """A base table of four little shards, without a search table."""
    make_tables(client)
    for shard in range(4):
        write_little_shard(shard_directory, shard, FEW_ROWS)
        publish_files(client, shard_directory, shard, tmp_path)
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
    """The base table of these shards and its search table, for tests that do not change them."""
    directory = tmp_path_factory.mktemp("staging")
    with fresh_database() as client:
        make_tables(client)
        for shard in SHARDS:
            publish_files(client, source, shard, directory, rules=Rules(max_bad_vectors=2))
        build_search(client)
        yield client


def begin(
    client: Client, origin: TaskOrigin = ORIGIN, options: IndexOptions = OPTIONS
) -> tuple[Builds, BuildPlan, list[int]]:
    builds = Builds(client, TABLE, origin)
    begun = begin_build(builds, options)
    assert not isinstance(begun, Holder), begun
    return builds, *begun


def tables(client: Client) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows if SEARCH in row[0]}


def parts(client: Client, table: str = SEARCH) -> dict[str, tuple[str, int, int]]:
    """Partition → (uuid of the part's data, rows, index bytes)."""
    rows = client.query(
        "SELECT partition, hash_of_all_files, rows, secondary_indices_uncompressed_bytes "
        "FROM system.parts WHERE active AND database = currentDatabase() AND table = {t:String}",
        parameters={"t": table},
    ).result_rows
    assert len({row[0] for row in rows}) == len(rows), "a bucket has several parts"
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def republish(client: Client, directory: Path, staging: Path, shard: int, rows: int) -> None:
    write_little_shard(directory, shard, rows)
    publish_files(client, directory, shard, staging, attempt=f"bbbb000{shard}")


class TestBuild:
    def test_it_has_the_rows_with_usable_vectors_and_counts_the_others(self, base: Client) -> None:
        buckets = base.query(
            "SELECT sum(rows), sum(left_out) FROM search_buckets WHERE state = 'built'"
        ).result_rows

        assert base.command(f"SELECT count() FROM {SEARCH}") == 3 * ROWS - 2
        assert buckets == [(3 * ROWS - 2, 2)]

    def test_it_has_the_values_of_the_base_table(self, base: Client) -> None:
        # As text, because NaN is not equal to itself.
        columns = "* REPLACE (toString(similarity) AS similarity)"

        differing = base.command(
            f"SELECT count() FROM (SELECT {columns} FROM {SEARCH} "
            f"EXCEPT SELECT {columns} FROM {TABLE})"
        )

        assert differing == 0

    def test_it_has_one_indexed_part_for_each_bucket_of_shards(self, base: Client) -> None:
        found = parts(base)

        assert sorted(found) == ["0", "1"]
        assert all(index_bytes > 0 for _, _, index_bytes in found.values())

    def test_nothing_is_left_of_the_building(self, base: Client) -> None:
        assert tables(base) == {SEARCH}

    @pytest.mark.parametrize("quantization", OFFERS["hnsw"].quantizations)
    def test_every_quantization_can_be_built(self, small: Client, quantization: str) -> None:
        build_search(small, replace(OPTIONS, quantization=quantization))

        assert small.command(f"SELECT count() FROM {SEARCH}") == 4 * FEW_ROWS

    def test_the_other_metric_can_be_built(self, small: Client) -> None:
        plan = build_search(small, replace(OPTIONS, metric="L2Distance"))

        assert read_in_use(small, TABLE) == plan
        assert plan.options.metric == "L2Distance"

    def test_one_row_is_enough(self, client: Client, shard_directory: Path, tmp_path: Path) -> None:
        make_tables(client)
        write_little_shard(shard_directory, 0, 1)
        publish_files(client, shard_directory, 0, tmp_path)

        build_search(client, target=0.95)

        assert client.command(f"SELECT count() FROM {SEARCH}") == 1

    def test_a_bucket_without_a_usable_vector_is_empty(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        write_little_shard(shard_directory, 3, 2)
        set_vectors(shard_directory, "text_embedding", {0: 0.0, 1: np.nan}, shard=3)
        rules = Rules(max_bad_vectors=2)
        publish_files(small, shard_directory, 3, tmp_path, attempt="bbbb0003", rules=rules)

        build_search(small, replace(OPTIONS, buckets=4))

        assert sorted(parts(small)) == ["0", "1", "2"]


class TestRebuild:
    def test_only_the_bucket_with_a_changed_shard_is_rebuilt(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        build_search(small)
        before = parts(small)
        republish(small, shard_directory, tmp_path, 3, FEW_ROWS + 7)

        builds, plan, buckets = begin(small, OTHER_RUN)
        attached = parts(small, f"{SEARCH}_{plan.build_id}")
        build_search(small, origin=OTHER_RUN)

        after = parts(small)
        assert buckets == [1]
        assert attached["0"] == after["0"] == before["0"]
        assert after["1"] != before["1"]
        assert after["1"][1] == 2 * FEW_ROWS + 7
        assert {
            b: s.made_by == plan.build_id for b, s in builds.buckets(plan.build_id).items()
        } == {
            0: False,
            1: True,
        }

    def test_an_attached_bucket_is_not_built_again(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        build_search(small)
        republish(small, shard_directory, tmp_path, 3, FEW_ROWS)

        builds, plan, buckets = begin(small, OTHER_RUN)
        for bucket in buckets:
            build_bucket(builds, plan, bucket)

        commands = small.query(
            "SELECT command FROM system.mutations WHERE database = currentDatabase() "
            "AND table = {t:String}",
            parameters={"t": f"{SEARCH}_{plan.build_id}"},
        ).result_rows
        assert {"PARTITION 0" in row[0] for row in commands} == {False}

    def test_nothing_changed_means_nothing_to_build(self, small: Client) -> None:
        build_search(small)
        before = parts(small)

        _, _, buckets = begin(small, OTHER_RUN)
        build_search(small, origin=OTHER_RUN)

        assert buckets == []
        assert parts(small) == before

    def test_a_shard_deleted_behind_our_back_makes_its_bucket_stale(self, small: Client) -> None:
        build_search(small)
        small.command(f"ALTER TABLE {TABLE} DROP PARTITION 2")

        build_search(small, origin=OTHER_RUN)

        assert small.command(f"SELECT count() FROM {SEARCH}") == 3 * FEW_ROWS

    def test_other_options_rebuild_everything(self, small: Client) -> None:
        build_search(small)

        _, _, buckets = begin(small, OTHER_RUN, replace(OPTIONS, quantization="f32"))

        assert buckets == [0, 1]

    def test_the_buckets_stay_while_the_table_grows_until_there_are_twice_as_many(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        assert build_search(small).shards_per_bucket == 2
        republish(small, shard_directory, tmp_path, 7, FEW_ROWS)

        assert begin(small, OTHER_RUN)[1].shards_per_bucket == 2
        republish(small, shard_directory, tmp_path, 8, FEW_ROWS)
        assert begin(small, OTHER_RUN)[1].shards_per_bucket == 5

    def test_a_view_by_name_follows(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        build_search(small)
        small.command(f"CREATE VIEW captions AS SELECT caption FROM {SEARCH}")
        republish(small, shard_directory, tmp_path, 0, FEW_ROWS + 1)

        build_search(small, origin=OTHER_RUN)

        assert small.command("SELECT count() FROM captions") == 4 * FEW_ROWS + 1


class TestInterruption:
    def test_a_build_that_was_interrupted_goes_on_where_it_was(self, small: Client) -> None:
        builds, plan, buckets = begin(small)
        build_bucket(builds, plan, buckets[0])
        done = parts(small, f"{SEARCH}_{plan.build_id}")

        _, again, left = begin(small)

        assert (again, left) == (plan, [1])
        assert parts(small, f"{SEARCH}_{plan.build_id}") == done

    def test_a_bucket_half_filled_is_filled_anew(self, small: Client) -> None:
        builds, plan, _ = begin(small)
        small.command(f"INSERT INTO {SEARCH}_{plan.build_id} SELECT * FROM {TABLE} WHERE shard = 0")

        assert build_bucket(builds, plan, 0).rows == 2 * FEW_ROWS

    def test_a_shard_published_while_building_is_picked_up_by_the_next_build(
        self, small: Client, shard_directory: Path, tmp_path: Path
    ) -> None:
        builds, plan, buckets = begin(small)
        for bucket in buckets:
            build_bucket(builds, plan, bucket)
        republish(small, shard_directory, tmp_path, 0, FEW_ROWS + 1)
        builds.append(plan.build_id, "accepted")
        publish_build(builds, plan)

        assert begin(small, OTHER_RUN)[2] == [0]

    def test_publishing_twice_is_harmless(self, small: Client) -> None:
        plan = build_search(small)

        assert publish_build(Builds(small, TABLE, ORIGIN), plan) == 4 * FEW_ROWS
        assert tables(small) == {SEARCH}

    def test_what_an_abandoned_build_has_left_is_dropped_by_the_next(self, small: Client) -> None:
        builds, plan, _ = begin(small)
        builds.append(plan.build_id, "failed")
        assert f"{SEARCH}_{plan.build_id}" in tables(small)

        build_search(small, origin=OTHER_RUN)

        assert tables(small) == {SEARCH}


class TestTwoBuilds:
    def test_the_second_is_told_who_builds(self, small: Client) -> None:
        _, plan, _ = begin(small)

        second = begin_build(Builds(small, TABLE, OTHER_RUN), OPTIONS)

        assert second == Holder(plan.build_id, ORIGIN.dag_id, ORIGIN.run_id)

    def test_of_two_that_start_at_once_one_builds(self, small: Client) -> None:
        barrier, begun = threading.Barrier(2), []

        def start(origin: TaskOrigin) -> None:
            barrier.wait()
            begun.append(begin_build(Builds(small, TABLE, origin), OPTIONS))

        threads = [threading.Thread(target=start, args=(o,)) for o in (ORIGIN, OTHER_RUN)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(isinstance(b, Holder) for b in begun) == [False, True]

    def test_one_that_lost_the_lease_builds_no_more(self, small: Client) -> None:
        builds, plan, _ = begin(small)
        builds.append(plan.build_id, "failed")
        begin(small, OTHER_RUN)

        with pytest.raises(IndexBuildLost, match="another run"):
            build_bucket(builds, plan, 0)


class TestRefusal:
    def test_an_empty_base_table_is_refused(self, client: Client) -> None:
        make_tables(client)

        with pytest.raises(IndexBuildFailed, match="load at least one shard"):
            begin(client)

    def test_a_table_of_somebody_else_is_left_alone(self, small: Client) -> None:
        small.command(f"CREATE TABLE {SEARCH} (mine String) ENGINE = MergeTree ORDER BY mine")
        small.command(f"INSERT INTO {SEARCH} VALUES ('precious')")

        with pytest.raises(TableMismatch, match="is left alone"):
            begin(small)
        assert small.command(f"SELECT mine FROM {SEARCH}") == "precious"

    def test_a_materialized_view_on_it_is_refused_with_its_name(self, small: Client) -> None:
        build_search(small)
        small.command(
            "CREATE MATERIALIZED VIEW watcher ENGINE = MergeTree ORDER BY id AS "
            f"SELECT id FROM {SEARCH}"
        )

        with pytest.raises(SearchTableInUse, match="watcher"):
            begin(small, OTHER_RUN)
        small.command("DROP TABLE watcher")

    def test_an_index_that_the_server_cannot_hold_is_refused_before_anything_is_built(
        self, small: Client
    ) -> None:
        with pytest.raises(IndexTooLarge, match="At most"):
            begin_build(Builds(small, TABLE, ORIGIN), IndexOptions(quantization="auto"), 10_000)
        assert tables(small) == set()

    def test_a_missing_base_table_is_typed(self, client: Client) -> None:
        make_tables(client)

        with pytest.raises(ClickHouseError, match="nowhere"):
            begin_build(Builds(client, "nowhere", ORIGIN), OPTIONS)

    def test_a_build_whose_recall_was_not_measured_is_not_published(self, small: Client) -> None:
        builds, plan, buckets = begin(small)
        for bucket in buckets:
            build_bucket(builds, plan, bucket)

        with pytest.raises(IndexBuildFailed, match="not accepted"):
            publish_build(builds, plan)
        assert SEARCH not in tables(small)

    def test_a_vector_of_another_length_fails_the_build_and_the_table_in_use_stays(
        self, small: Client
    ) -> None:
        build_search(small)
        before = parts(small)
        small.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            "VALUES (399999999, 3, [1, 0, 0], [1, 0, 0])"
        )

        builds, plan, buckets = begin(small, OTHER_RUN)

        assert buckets == [1]
        with pytest.raises(IndexBuildFailed, match="vector similarity index"):
            build_bucket(builds, plan, 1)
        assert parts(small) == before
