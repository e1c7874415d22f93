"""Search tables of kind `ivf`: what is in which list, and what is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table.build import begin_build, build_bucket
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.ivf import ListsProfile
from laion.clickhouse.search_table.kinds.ivf.training import read_lists
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.search import Target, search
from laion.clickhouse.search_table.sizing import plan_index
from laion.clickhouse.server import ServerFacts
from laion.monitor import check_drift
from laion.vectors import clip_dimensions
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, build_search, make_tables, publish_files

ROWS = 400
SHARDS = (0, 1, 2)
OPTIONS = IndexOptions(kind="ivf", quantization="auto", buckets=2, min_bucket_rows=1)
FEW = ListsProfile(lists=2, rows=10)


def load(client: Client, directory: Path) -> None:
    make_tables(client)
    for shard in SHARDS:
        write_little_shard(directory, shard, ROWS)
        publish_files(client, directory, shard, directory)


@pytest.fixture(scope="module")
def searched(
    fresh_database: Callable[[], AbstractContextManager[Client]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A base table of three shards and its search table, for tests that do not change them."""
    with fresh_database() as client:
        load(client, tmp_path_factory.mktemp("source"))
        build_search(client, OPTIONS, target=0.9)
        yield client


@pytest.fixture
def base(client: Client, tmp_path: Path) -> Client:
    load(client, tmp_path)
    return client


def plan_in_use(client: Client) -> BuildPlan:
    plan = read_in_use(client, TABLE)
    assert plan is not None
    return plan


def narrow(plan: BuildPlan) -> str:
    return f"{TABLE}_search_{plan.build_id}_image"


def begin(client: Client, run: str = "next") -> tuple[Builds, BuildPlan, list[int]]:
    builds = Builds(client, TABLE, TaskOrigin("laion_ingest", run))
    begun = begin_build(builds, OPTIONS)
    assert not isinstance(begun, Holder)
    return (builds, *begun)


class TestLists:
    def test_every_row_is_in_the_list_that_is_nearest_as_they_were_trained(
        self, searched: Client
    ) -> None:
        plan = plan_in_use(searched)
        lists = read_lists(searched, f"{TABLE}_search_{plan.root}_image_trained")
        assert lists is not None
        rows = searched.query(f"SELECT id, list FROM {narrow(plan)} ORDER BY id").result_rows
        vectors = searched.query(f"SELECT image_embedding FROM {TABLE} ORDER BY id").result_rows
        units = np.array([vector for (vector,) in vectors], np.float32)
        units /= np.linalg.norm(units, axis=1, keepdims=True)

        assert len(rows) == len(SHARDS) * ROWS
        assert [own for _, own in rows] == lists.assign(units).tolist()

    def test_means_and_spreads_are_those_of_the_rows(self, searched: Client) -> None:
        name = narrow(plan_in_use(searched))
        rows = searched.query(f"SELECT list, image_embedding FROM {name}").result_rows
        members: dict[int, list[list[float]]] = {}
        for own, vector in rows:
            members.setdefault(own, []).append(vector)

        known = searched.query(
            f"SELECT list, rows, near FROM {name}_lists ORDER BY list"
        ).result_rows

        assert [own for own, *_ in known] == sorted(members)
        for own, count, near in known:
            mean, spread, rest = near[:DIMENSION], near[DIMENSION], near[DIMENSION + 1 :]
            vectors = np.array(members[own])
            assert count == len(vectors)
            np.testing.assert_allclose(mean, vectors.mean(axis=0), atol=0.01)
            far = np.sqrt(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
            assert spread == pytest.approx(far, abs=0.02)
            assert not any(rest)

    def test_the_same_rows_give_the_same_lists(self, base: Client) -> None:
        found = []
        for run in ("first", "second"):
            _, plan, _ = begin(base, run)
            lists = read_lists(base, f"{TABLE}_search_{plan.root}_image_trained")
            assert lists is not None
            found.append(lists.centroids)
            Builds(base, TABLE, TaskOrigin("laion_ingest", run)).append(plan.build_id, "failed")

        np.testing.assert_array_equal(*found)

    def test_lists_of_which_some_are_missing_are_trained_again(self, base: Client) -> None:
        _, plan, _ = begin(base)
        trained = f"{TABLE}_search_{plan.root}_image_trained"
        before = read_lists(base, trained)
        base.command(f"DELETE FROM {trained} WHERE list = 3")
        assert read_lists(base, trained) is None

        begin(base)

        after = read_lists(base, trained)
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after.centroids, before.centroids)

    def test_rows_that_came_to_a_publication_later_are_assigned(self, base: Client) -> None:
        base.command(f"DELETE FROM {TABLE} WHERE shard = 0 AND id < 100")
        build_search(base, OPTIONS)
        base.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            f"SELECT id - 200, shard, image_embedding, text_embedding FROM {TABLE} "
            "WHERE shard = 0 AND id BETWEEN 200 AND 299"
        )
        plan = build_search(base, OPTIONS)

        found = base.query(f"SELECT count() FROM {narrow(plan)} WHERE shard = 0").result_rows
        assert found == [(ROWS,)]

    def test_as_many_as_were_asked_for_are_kept(self, base: Client) -> None:
        build_search(base, replace(OPTIONS, parameters={"lists": 100}))
        before = plan_in_use(base)

        _, plan, to_build = begin(base)

        assert (plan.root, plan.options) == (before.root, before.options)
        assert to_build == []

    def test_on_request_everything_is_built_and_trained_again(self, base: Client) -> None:
        build_search(base, OPTIONS)
        before = plan_in_use(base)

        builds = Builds(base, TABLE, TaskOrigin("laion_ingest", "next"))
        begun = begin_build(builds, OPTIONS, takes_over=False)

        assert not isinstance(begun, Holder)
        plan, to_build = begun
        assert plan.root == plan.build_id != before.root
        assert to_build == list(plan.buckets)

    def test_once_they_are_trained_again_every_row_is_assigned_again(self, base: Client) -> None:
        build_search(base, OPTIONS)
        before = plan_in_use(base)
        base.command(f"TRUNCATE TABLE {TABLE}_search_{before.root}_text_trained")

        builds, plan, to_build = begin(base)

        assert plan.root != before.root
        assert to_build == list(plan.buckets)
        assigned = f"{TABLE}_search_{plan.root}_text_assigned"
        assert base.query(f"SELECT count() FROM {assigned}").result_rows == [(0,)]
        build_bucket(builds, plan, to_build[0])
        _, plan, to_build = begin(base)
        assert to_build == list(plan.buckets)[1:]


class TestAssignment:
    def assigned(self, caplog: pytest.LogCaptureFixture) -> list[int]:
        return [
            int(record.args[1])  # type: ignore[index, arg-type]
            for record in caplog.records
            if record.name.endswith("ivf.assignment")
        ]

    def test_a_shard_that_has_not_changed_is_not_assigned_again(
        self, base: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        build_search(base, OPTIONS)
        assert sorted(self.assigned(caplog)) == sorted([*SHARDS, *SHARDS])
        caplog.clear()
        # Shards 0 and 1 are one bucket.
        publish_files(base, tmp_path, 1, tmp_path, attempt="aaaa0002")

        builds, plan, to_build = begin(base)
        for bucket in to_build:
            build_bucket(builds, plan, bucket)

        assert to_build == [0]
        assert self.assigned(caplog) == [1, 1]
        held = base.query(f"SELECT count() FROM {narrow(plan)}").result_rows[0][0]
        assert held == len(SHARDS) * ROWS

    def test_what_a_killed_task_has_written_in_part_is_assigned_again(
        self, base: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        builds, plan, to_build = begin(base)
        build_bucket(builds, plan, to_build[0])
        kept = f"{TABLE}_search_{plan.root}_image_assigned"
        base.command(f"DELETE FROM {kept} WHERE shard = 0 AND id % 2 = 0")
        caplog.clear()
        builds.record_bucket(plan.build_id, builds.buckets(plan.build_id)[to_build[0]])
        base.command(f"ALTER TABLE {narrow(plan)} DROP PARTITION {to_build[0]}")

        state = build_bucket(builds, plan, to_build[0])

        assert self.assigned(caplog) == [0]
        assert (state.rows, state.left_out) == (2 * ROWS, 0)


class TestSearch:
    def ask(self, client: Client, where: str, limit: int = 10) -> tuple[list[int], list[int]]:
        """Return what two lists are asked for under a filter, and what there is."""
        plan = plan_in_use(client)
        kind = kind_of(plan.options)
        vector = [1.0, *([0.25] * (DIMENSION - 1))]
        question = Question("image_embedding", "{target:Array(Float32)}", conditions=[where])
        sql = kind.search(TABLE, kind.place(TABLE, plan, in_use=True), plan, question, FEW)
        parameters = {"target": vector, "limit": limit}
        found = client.query(sql, parameters=parameters).result_rows
        exact = client.query(
            f"SELECT id FROM {TABLE} WHERE {where} "
            "ORDER BY cosineDistance(image_embedding, {target:Array(Float32)}), id "
            "LIMIT {limit:UInt32}",
            parameters=parameters,
        ).result_rows
        return [row[0] for row in found], [row[0] for row in exact]

    @pytest.mark.parametrize("rows", [1, 9, 10, 11])
    def test_as_many_rows_come_as_pass_a_filter_wherever_they_are(
        self, searched: Client, rows: int
    ) -> None:
        # They are the farthest ones.
        farthest = searched.query(
            f"SELECT id FROM {TABLE} "
            f"ORDER BY cosineDistance(image_embedding, {{v:Array(Float32)}}) DESC LIMIT {rows}",
            parameters={"v": [1.0, *([0.25] * (DIMENSION - 1))]},
        ).result_rows
        ids = ", ".join(str(row[0]) for row in farthest)

        found, exact = self.ask(searched, f"id IN ({ids})")

        assert found == exact
        assert len(found) == min(rows, 10)

    def test_more_lists_are_read_where_fewer_rows_pass(self, searched: Client) -> None:
        found, exact = self.ask(searched, "id % 20 = 3")

        assert len(found) == 10
        assert len(set(found) & set(exact)) >= 8

    def test_only_some_lists_are_read(self, searched: Client) -> None:
        plan = plan_in_use(searched)
        kind = kind_of(plan.options)
        question = Question("image_embedding", "{target:Array(Float32)}")
        sql = kind.search(TABLE, kind.place(TABLE, plan, in_use=True), plan, question, FEW)
        parameters = {"target": [1.0, *([0.25] * (DIMENSION - 1))], "limit": 3}

        rows = searched.query(f"EXPLAIN indexes = 1 {sql}", parameters=parameters).result_rows

        (by_key,) = re.findall(r"list in .*?Granules: (\d+)/(\d+)", str(rows))
        assert int(by_key[0]) < int(by_key[1]) / 2

    def test_queries_far_from_all_rows_read_more_lists(self, searched: Client) -> None:
        """Of texts, which are in another place than pictures."""
        plan = plan_in_use(searched)
        kind = kind_of(plan.options)
        near = searched.query(f"SELECT image_embedding FROM {TABLE} LIMIT 40").result_rows
        asked = {"near": [row[0] for row in near], "cross": [[-x for x in row[0]] for row in near]}
        easy, hard = ListsProfile(2, 10), ListsProfile(400, 100)

        profile = kind.distinguish(
            searched, narrow(plan), hard, {"near": easy, "cross": hard}, asked
        )

        assert isinstance(profile, ListsProfile)
        assert (profile.lists, profile.near_lists) == (400, 2)
        assert kind.read_profile(profile.to_json()) == profile
        question = Question("image_embedding", "{target:Array(Float32)}")
        sql = kind.search(TABLE, kind.place(TABLE, plan, in_use=True), plan, question, profile)
        read = {
            name: searched.query(sql, parameters={"target": vectors[0], "limit": 10})
            for name, vectors in asked.items()
        }
        rows = {name: int(found.summary["read_rows"]) for name, found in read.items()}
        assert 3 * rows["near"] < rows["cross"]

    def test_kinds_of_query_that_are_equally_hard_are_not_distinguished(
        self, searched: Client
    ) -> None:
        plan = plan_in_use(searched)
        hard = ListsProfile(64, 50)
        asked = {"near": [[1.0] * DIMENSION], "cross": [[1.0] * DIMENSION]}

        found = kind_of(plan.options).distinguish(
            searched, narrow(plan), hard, {"near": hard, "cross": hard}, asked
        )

        assert found is None

    def test_a_filter_by_caption_is_answered_by_the_lists(self, searched: Client) -> None:
        vector = [1.0, *([0.25] * (DIMENSION - 1))]
        caption = searched.query(f"SELECT caption FROM {TABLE} WHERE id = 7").result_rows[0][0]

        found = search(searched, TABLE, Target.vector(vector), filters={"caption_has": caption})

        assert 7 in {hit.id for hit in found.hits}
        assert all(caption in hit.values["caption"] for hit in found.hits)


class TestDrift:
    """What the monitor says when rows come that the lists were not trained for."""

    def test_more_of_the_same_is_none(self, base: Client, tmp_path: Path) -> None:
        build_search(base, OPTIONS)
        write_little_shard(tmp_path, 3, ROWS)
        publish_files(base, tmp_path, 3, tmp_path)
        build_search(base, OPTIONS)

        assert check_drift(base, TABLE) == []

    def test_rows_of_another_kind_are_found_and_training_again_ends_it(self, base: Client) -> None:
        build_search(base, OPTIONS)
        root = plan_in_use(base).root
        random = np.random.default_rng(4)
        alike = random.normal(0, 0.01, (2000, DIMENSION)) - np.eye(DIMENSION)[0]
        scattered = random.normal(0, 1, (2000, DIMENSION))
        rows = zip(range(3 * 10**8, 3 * 10**8 + 2000), alike, scattered, strict=True)
        base.insert(
            TABLE,
            [[number, 3, image.tolist(), text.tolist()] for number, image, text in rows],
            column_names=["id", "shard", "image_embedding", "text_embedding"],
        )
        build_search(base, OPTIONS)
        assert plan_in_use(base).root == root

        findings = check_drift(base, TABLE)

        texts = [finding.summary for finding in findings]
        assert any(re.match("image_embedding: .* lists have grown", text) for text in texts), texts
        assert any("text_embedding: rows of shards 3 are farther" in text for text in texts), texts
        assert all("rebuild_index on" in finding.remedy for finding in findings)
        build_search(base, OPTIONS, takes_over=False)
        assert plan_in_use(base).root != root
        assert check_drift(base, TABLE) == []


@pytest.mark.parametrize(("rows", "buckets"), [(1_000_000, 1), (10_000_000, 4), (407_314_954, 4)])
def test_partitions_are_as_few_as_lists_need(rows: int, buckets: int) -> None:
    server = ServerFacts("26.9.2.1", 64 * 10**9, None, 16, "enable_quantized_codec")
    options = IndexOptions(kind="ivf", quantization="auto")
    sized = plan_index(rows, clip_dimensions(512), options, server)

    most = kind_of(sized.options).most_buckets(rows, options=sized.options)

    assert min(5, most) == buckets


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_of_few_rows_is_searched(
    client: Client, shard_directory: Path, tmp_path: Path, rows: int
) -> None:
    make_tables(client)
    write_little_shard(shard_directory, 0, rows)
    publish_files(client, shard_directory, 0, tmp_path)

    build_search(client, OPTIONS)

    found = search(client, TABLE, Target.vector([1.0] * DIMENSION))
    assert len(found.hits) == rows


def test_rows_that_are_all_the_same_are_searched(client: Client) -> None:
    make_tables(client)
    client.command(
        f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
        f"SELECT number, 0, arrayWithConstant({DIMENSION}, 1), arrayWithConstant({DIMENSION}, 1) "
        "FROM numbers(500)"
    )

    build_search(client, OPTIONS)

    assert len(search(client, TABLE, Target.vector([1.0] * DIMENSION)).hits) == 10
