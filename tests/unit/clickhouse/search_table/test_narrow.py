"""Search tables of the kinds with codes: planned, built, measured, put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import BackfillRequest, ingest_conf, plan_backfill
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.clickhouse.search_table.build import (
    begin_build,
    build_bucket,
    publish_build,
)
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import OFFERS, kind_of
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.recall import measure_recall
from laion.clickhouse.search_table.recheck import recheck_recall
from laion.clickhouse.search_table.search import Target, search
from laion.clickhouse.search_table.sizing import plan_index
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexBuildFailed, ServerTooOld, TableMismatch
from laion.monitor import check_index
from laion.vectors import clip_dimensions
from tests.embedded_server import EmbeddedServer
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    QUERIES,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

ROWS = 400
SHARDS = (0, 1, 2)
NARROW = ("quantized", "ivf")
VIEWS = (f"{TABLE}_near", f"{TABLE}_near_text")
SERVER = ServerFacts("26.9.2.1", 64 * 10**9, None, 16, "enable_quantized_codec")


def load(client: Client, source: Path, directory: Path) -> None:
    make_tables(client)
    for shard in SHARDS:
        write_little_shard(source, shard, ROWS)
        publish_files(client, source, shard, directory)


@pytest.fixture(scope="module", params=NARROW)
def options(request: pytest.FixtureRequest) -> IndexOptions:
    return options_of(request.param)


def options_of(kind: str) -> IndexOptions:
    return IndexOptions(kind=kind, quantization="auto", buckets=2, min_bucket_rows=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def searched(
    fresh_database: Callable[[], AbstractContextManager[Client]],
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
    options: IndexOptions,
) -> Iterator[Client]:
    """A base table of three shards and its search table, for tests that do not change them."""
    with fresh_database() as client:
        load(client, source, tmp_path_factory.mktemp("staging"))
        build_search(client, options, target=0.9)
        yield client


@pytest.fixture
def base(client: Client, tmp_path: Path) -> Client:
    load(client, tmp_path, tmp_path)
    return client


def tables(client: Client) -> set[str]:
    query = (
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        f"AND match(name, '^{TABLE}_(search|near)')"
    )
    return {row[0] for row in client.query(query).result_rows}


def nearest(client: Client, vector: list[float], where: str = "1", limit: int = 10) -> list[int]:
    """Return what brute force finds in the base table."""
    rows = client.query(
        f"SELECT id FROM {TABLE} WHERE {where} "
        f"ORDER BY cosineDistance(image_embedding, {{v:Array(Float32)}}) LIMIT {limit}",
        parameters={"v": vector},
    ).result_rows
    return [row[0] for row in rows]


@pytest.fixture(scope="module")
def vector() -> list[float]:
    return [1.0, *([0.25] * (DIMENSION - 1))]


def test_codes_are_compared(searched: Client, vector: list[float]) -> None:
    plan = read_in_use(searched, TABLE)
    assert plan is not None
    kind = kind_of(plan.options)
    question = Question("image_embedding", "{target:Array(Float32)}")
    place = kind.place(TABLE, plan, in_use=True)
    explained = {}
    for profile in (*kind.ladder, None):
        sql = kind.search(TABLE, place, plan, question, profile)
        parameters = {"target": vector, "limit": 10}
        rows = searched.query(f"EXPLAIN indexes = 1 {sql}", parameters=parameters).result_rows
        explained[profile] = kind.is_used([row[0] for row in rows], "image_embedding")

    assert explained == {**dict.fromkeys(kind.ladder, True), None: False}


class TestBuild:
    def test_it_is_measured_and_says_how_it_is_searched(self, searched: Client) -> None:
        plan = read_in_use(searched, TABLE)
        assert plan is not None
        assert (
            kind_of(plan.options)
            .describe(plan.options)
            .endswith("codes, turboquant, cosineDistance")
        )

        again = recheck_recall(searched, TABLE, queries=QUERIES, budget=10**9)

        assert {now.column for now in again} == {"image_embedding", "text_embedding"}
        assert not any(now.is_low for now in again)
        assert list(check_index(searched, TABLE)) == []
        check = kind_of(plan.options).check(TABLE, plan, len(SHARDS) * ROWS)
        assert searched.query(check).result_rows == [(True, True, True)]

    def test_it_is_measured_by_the_vectors_of_the_base_table(self, searched: Client) -> None:
        own = "`column` = 'image_embedding' AND number = 1"
        vector = searched.query(f"SELECT vector FROM recall_queries WHERE {own}").result_rows[0][0]
        kept = searched.query(f"SELECT ids, distances FROM recall_truth WHERE {own}").result_rows
        known = {
            row: far for ids, distances in kept for row, far in zip(ids, distances, strict=True)
        }

        exact = searched.query(
            "SELECT id, cosineDistance(image_embedding::Array(Float64), {v:Array(Float64)}) "
            f"FROM {TABLE} WHERE id IN {{ids:Array(Int64)}}",
            parameters={"v": vector, "ids": list(known)},
        ).result_rows

        assert len(known) == len(exact) >= 100
        assert known == pytest.approx(dict(exact), abs=1e-6)

    def test_what_is_written_into_its_tables_later_is_not_merged_in(self, searched: Client) -> None:
        plan = read_in_use(searched, TABLE)
        assert plan is not None
        for vector in plan.vectors:
            name = f"{TABLE}_search_{plan.build_id}_{vector.removesuffix('_embedding')}"
            created = searched.command(f"SHOW CREATE TABLE {name}")
            for pool in ("min", "max"):
                assert f"max_bytes_to_merge_at_{pool}_space_in_pool = 1" in created

    def test_only_what_has_changed_is_built_again(
        self, base: Client, tmp_path: Path, options: IndexOptions
    ) -> None:
        build_search(base, options)
        publish_files(base, tmp_path, 2, tmp_path, attempt="aaaa0002")
        before = tables(base)

        begun = begin_build(Builds(base, TABLE, TaskOrigin("laion_ingest", "next")), options)

        assert not isinstance(begun, Holder)
        plan, to_build = begun
        assert to_build == [1]
        builds = Builds(base, TABLE, TaskOrigin("laion_ingest", "next"))
        build_bucket(builds, plan, 1)
        measure_recall(builds, plan, target=0.9, queries=QUERIES, budget=10**9)
        assert publish_build(builds, plan) == len(SHARDS) * ROWS
        assert len(tables(base)) == len(before)
        assert read_in_use(base, TABLE) == plan

    @pytest.mark.parametrize(("first", "second"), [*permutations(("hnsw", *NARROW), 2)])
    def test_a_table_is_moved_from_one_kind_to_another(
        self, base: Client, vector: list[float], first: str, second: str
    ) -> None:
        for kind in (first, second):
            origin = TaskOrigin("laion_ingest", kind)
            build_search(base, options_of(kind), origin=origin, target=0.9)

        plan = read_in_use(base, TABLE)
        assert plan is not None
        assert plan.options.kind == second
        assert tables(base) == {*own_tables(plan), *VIEWS}
        found = search(base, TABLE, Target.vector(vector), limit=10)
        assert len({hit.id for hit in found.hits} & set(nearest(base, vector))) >= 5

    def test_killed_between_two_switches_it_goes_on(
        self, base: Client, monkeypatch: pytest.MonkeyPatch, options: IndexOptions
    ) -> None:
        build_search(base, options_of("hnsw"))
        builds = Builds(base, TABLE, TaskOrigin("laion_ingest", "killed"))
        begun = begin_build(builds, options)
        assert not isinstance(begun, Holder)
        for bucket in begun[1]:
            build_bucket(builds, begun[0], bucket)
        measure_recall(builds, begun[0], target=0.5, queries=QUERIES, budget=10**9)
        kind = kind_of(options_of("hnsw"))
        with monkeypatch.context() as patch:
            patch.setattr(type(kind), "retire", lambda *_: exec("raise KeyboardInterrupt"))
            with pytest.raises(KeyboardInterrupt):
                publish_build(builds, begun[0])
        assert f"{TABLE}_search" in tables(base)

        publish_build(builds, begun[0])

        assert tables(base) == {*own_tables(begun[0]), *VIEWS}

    def test_a_backfill_keeps_the_kind(
        self, base: Client, tmp_path: Path, options: IndexOptions
    ) -> None:
        ledger = Ledger(base)
        ledger.record_run(
            ORIGIN, table=TABLE, dataset="little", source="", shards="0-2", params={"shards": "0-2"}
        )
        build_search(base, options)
        publish_files(base, tmp_path, 2, tmp_path, attempt="aaaa0002")
        request = BackfillRequest(TABLE, which="stale")

        conf = ingest_conf(base, request, plan_backfill(base, request))

        assert conf is not None
        assert (conf["index_kind"], conf["index_quantization"]) == (options.kind, "turboquant")

    @pytest.mark.parametrize("kind", OFFERS)
    def test_somebody_else_s_table_of_that_name_is_left_alone(
        self, base: Client, kind: str
    ) -> None:
        base.command(f"CREATE TABLE {TABLE}_near (a UInt8) ENGINE = MergeTree ORDER BY a")

        with pytest.raises(TableMismatch, match=f"'{TABLE}_near' exists and was not made by"):
            build_search(base, options_of(kind))
        assert base.command(f"SELECT count() FROM {TABLE}_near") == 0

    def test_rows_without_a_direction_are_left_out(
        self, base: Client, vector: list[float], options: IndexOptions
    ) -> None:
        base.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            f"SELECT 900 + number, 0, arrayWithConstant({DIMENSION}, if(number = 1, nan, 0)), "
            f"arrayWithConstant({DIMENSION}, 1) FROM numbers(2)"
        )

        build_search(base, options)

        found = search(base, TABLE, Target.vector(vector), limit=2000)
        assert not {900, 901} & {hit.id for hit in found.hits}
        assert len(found.hits) == len(SHARDS) * ROWS

    def test_a_plan_made_again_for_more_shards_has_room_for_them(
        self, base: Client, tmp_path: Path, options: IndexOptions
    ) -> None:
        builds = Builds(base, TABLE, ORIGIN)
        first = begin_build(builds, options)
        write_little_shard(tmp_path, 3, ROWS)
        publish_files(base, tmp_path, 3, tmp_path)
        write_little_shard(tmp_path, 4, ROWS)
        publish_files(base, tmp_path, 4, tmp_path)

        plan = build_search(base, options)

        assert not isinstance(first, Holder)
        assert plan.layout != first[0].layout
        assert plan.build_id != first[0].build_id
        name = f"{TABLE}_search_{plan.build_id}_image"
        found = base.query(f"SELECT shard, count() FROM {name} GROUP BY shard ORDER BY shard")
        assert found.result_rows == [(shard, ROWS) for shard in range(5)]

    def test_a_restarted_server_searches_as_before(
        self, tmp_path: Path, vector: list[float], options: IndexOptions
    ) -> None:
        server = EmbeddedServer(tmp_path / "server")
        with server, server.client() as client:
            load(client, tmp_path, tmp_path)
            # BFloat16 moves rows that are nearly equally far: more cannot be relied on.
            build_search(client, options, target=0.8)
            before = search(client, TABLE, Target.vector(vector), limit=10)
        with server, server.client() as client:
            after = search(client, TABLE, Target.vector(vector), limit=10)

            assert after.hits == before.hits
            assert after.hits[0].id == nearest(client, vector)[0]


class TestPlan:
    def test_auto_takes_the_method_that_the_dimensions_allow(self, options: IndexOptions) -> None:
        for dimension, method in ((512, "turboquant"), (100, "int8")):
            sized = plan_index(1000, clip_dimensions(dimension), options, SERVER)
            assert sized.options.quantization == method

    def test_what_cannot_be_is_refused(self, options: IndexOptions) -> None:
        vectors = clip_dimensions(100)
        with pytest.raises(BadRequest, match="choose the index_kind hnsw"):
            plan_index(1, vectors, replace(options, metric="L2Distance"), SERVER)
        with pytest.raises(BadRequest, match=r"dimensions that 8 divides, not for 100"):
            plan_index(1, vectors, replace(options, quantization="rabitq"), SERVER)
        with pytest.raises(BadRequest, match=r"'bf16' is none of auto, turboquant"):
            plan_index(1, vectors, replace(options, quantization="bf16"), SERVER)
        with pytest.raises(ServerTooOld, match=r"no codec Quantized .*index_kind hnsw"):
            plan_index(1, vectors, options, replace(SERVER, codec_setting=None))

    @pytest.mark.parametrize("method", OFFERS["quantized"].quantizations)
    def test_every_method_can_be_built(
        self, base: Client, vector: list[float], method: str, options: IndexOptions
    ) -> None:
        build_search(base, replace(options, quantization=method), target=0.9)

        assert search(base, TABLE, Target.vector(vector)).hits[0].id == nearest(base, vector)[0]

    def test_an_empty_base_table_is_refused(self, client: Client, options: IndexOptions) -> None:
        make_tables(client)

        with pytest.raises(IndexBuildFailed, match="no rows"):
            build_search(client, options)


def own_tables(plan: BuildPlan) -> set[str]:
    return kind_of(plan.options).tables(TABLE, plan, in_use=True)
