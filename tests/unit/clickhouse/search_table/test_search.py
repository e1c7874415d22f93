from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.client import insert_rows
from laion.clickhouse.schema import ensure_base_table, ensure_ledger
from laion.clickhouse.search_table import search as search_module
from laion.clickhouse.search_table.filters import Filters
from laion.clickhouse.search_table.kinds.hnsw import HnswProfile
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.search import (
    SearchResult,
    Target,
    read_profile,
    read_search_plan,
    search,
    search_tutorial,
)
from laion.errors import BadRequest, ClickHouseError, RowMissing, SearchTableMissing
from tests.embedded_server import EmbeddedServer
from tests.shard_files import DIMENSION, read_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    IDENTITY,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

SHARDS = (0, 1)
ROWS = 400
SEARCH = f"{TABLE}_search"
# Unrounded, so that near ties come in the order of the exact search.
OPTIONS = IndexOptions(quantization="f32", parameters={"m": 16, "ef_construction": 64})
# An index of this size misses one row in 300, another one in each build.
MISSED = 0.25


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    for shard in SHARDS:
        write_little_shard(directory, shard, ROWS)
    return directory


@pytest.fixture(scope="module")
def searched(
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A base table of two shards and its search table."""
    directory = tmp_path_factory.mktemp("staging")
    # A server of its own: others may have deployed the real encode_text.
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    with server, server.client(autogenerate_session_id=False) as client:
        make_tables(client)
        for shard in SHARDS:
            publish_files(client, source, shard, directory)
        build_search(client, OPTIONS)
        yield client


@pytest.fixture
def words(searched: Client) -> Iterator[None]:
    """Stands in for the deployed function encode_text: one vector, whatever the text."""
    vector = [1.0] + [0.0] * (DIMENSION - 1)
    searched.command(f"CREATE FUNCTION encode_text AS text -> {vector}")
    yield
    searched.command("DROP FUNCTION encode_text")


def ids(result: SearchResult) -> list[int]:
    return [hit.id for hit in result.hits]


def nearly_all(found: list[int], nearest: list[int]) -> bool:
    """Whether an index found these rows but for the few it may miss, in their order."""
    both = [row for row in nearest if row in found]
    in_order = [row for row in found if row in both] == both
    return in_order and len(both) >= len(nearest) * (1 - MISSED)


def inner_statement(client: Client) -> str:
    """The SELECT in the view that finds the nearest ids, with `target` for its vector."""
    ((view,),) = client.query(f"SHOW CREATE VIEW {TABLE}_near").result_rows
    start = view.index("FROM", view.index("groupUniqArray")) + len("FROM")
    inner = view[start : view.rindex(") AS laion_found")]
    # The settings of the scalar subquery stand behind it.
    assert "SETTINGS hnsw_candidate_list_size_for_search" in inner
    for name, kind in re.findall(r"\{(\w+):(Nullable\(\w+\))\}", inner):
        inner = inner.replace(f"{{{name}:{kind}}}", f"CAST(NULL, '{kind}')")
    return "SELECT * FROM" + inner.replace("{q:Array(Float32)}", "{target:Array(Float32)}")


def test_the_view_uses_the_index(searched: Client) -> None:
    inner = inner_statement(searched)

    plan = searched.query(
        f"EXPLAIN indexes = 1 {inner}", parameters={"target": [0.25] * DIMENSION}
    ).result_rows

    assert "vector_similarity" in "\n".join(row[0] for row in plan)


@pytest.mark.parametrize("column", ["image_embedding", "text_embedding"])
def test_exact_and_indexed_search_agree_on_the_nearest(
    searched: Client, source: Path, column: str
) -> None:
    for vector in read_vectors(source, "text_embedding", 1)[:5]:
        target = Target.vector(vector.tolist())
        exact = search(searched, TABLE, target, column=column, limit=5, exact=True)
        indexed = search(searched, TABLE, target, column=column, limit=5)

        assert nearly_all(ids(indexed), ids(exact))
        assert (exact.is_exact, indexed.is_exact) == (True, False)


def test_exact_search_finds_what_numpy_finds(searched: Client, source: Path) -> None:
    target = read_vectors(source, "text_embedding", 0)[0]

    result = search(searched, TABLE, Target.vector(target.tolist()), limit=5, exact=True)

    rows = searched.query(f"SELECT id, image_embedding FROM {TABLE}").result_rows
    vectors = np.array([row[1] for row in rows])
    cosines = vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target)
    nearest = np.argsort(-cosines)[:5]
    assert [hit.id for hit in result.hits] == [rows[i][0] for i in nearest]
    np.testing.assert_allclose(
        [hit.distance for hit in result.hits], 1 - cosines[nearest], atol=1e-5
    )


def test_the_sql_it_shows_runs_as_it_stands(searched: Client) -> None:
    target = [0.25] * DIMENSION
    result = search(searched, TABLE, Target.vector(target), limit=5)

    again = searched.query(result.sql, parameters={"target": target, "limit": 5}).result_rows

    assert [row[0] for row in again] == [hit.id for hit in result.hits]


def test_a_hit_tells_what_the_row_is(searched: Client, source: Path) -> None:
    target = read_vectors(source, "image_embedding", 0)[7]

    hit = search(searched, TABLE, Target.vector(target.tolist()), limit=1).hits[0]

    columns = "url, caption, NSFW, similarity, LICENSE, width, height"
    found = searched.query(f"SELECT {columns} FROM {TABLE} WHERE id = {hit.id}")
    assert [hit.values] == list(found.named_results())


@pytest.mark.parametrize("exact", [False, True])
def test_a_table_of_an_earlier_release_is_searched_before_it_has_a_new_column(
    searched: Client, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    names = (*search_module.SHOWN_NAMES, "of_a_later_release")
    monkeypatch.setattr(search_module, "SHOWN_NAMES", names)

    hits = search(searched, TABLE, Target.vector([0.25] * DIMENSION), limit=2, exact=exact).hits

    assert [tuple(hit.values) for hit in hits] == [names[:-1]] * 2


def test_a_filter_that_does_not_exist_is_refused(searched: Client) -> None:
    target = Target.vector([0.25] * DIMENSION)

    with pytest.raises(BadRequest, match="no filter min_widht; there are caption_has, nsfw"):
        search(searched, TABLE, target, filters={"min_widht": 200})


def test_more_like_a_row_leaves_the_row_out(searched: Client) -> None:
    target = Target.row(searched, TABLE, 5, "image_embedding")

    result = search(searched, TABLE, target, limit=5)

    exact = search(searched, TABLE, target, limit=5, exact=True)
    assert 5 not in ids(result)
    assert nearly_all(ids(result), ids(exact))
    assert not result.is_exact


def test_words_go_through_encode_text(searched: Client, words: None) -> None:
    result = search(searched, TABLE, Target.text("a cat; it's asleep"), limit=5)

    same = search(searched, TABLE, Target.vector([1.0] + [0.0] * (DIMENSION - 1)), limit=5)
    assert [hit.id for hit in result.hits] == [hit.id for hit in same.hits]
    assert f"FROM `{TABLE}_near`(q = encode_text(" in result.sql


class TestFilters:
    @pytest.mark.parametrize(
        ("filters", "condition"),
        [
            ({"nsfw": ["NSFW", "UNSURE"]}, "NSFW IN ('NSFW', 'UNSURE')"),
            ({"min_similarity": 0.3}, "NOT similarity < toFloat32(0.3)"),
            (
                {"min_width": 200, "min_height": 200, "min_similarity": 0.3},
                "width >= 200 AND height >= 200 AND NOT similarity < toFloat32(0.3)",
            ),
            ({"licenses": ["?"]}, "LICENSE IN ('?')"),
            ({"licenses": [], "nsfw": (), "min_width": 0, "min_similarity": None}, "1"),
        ],
    )
    def test_hits_are_the_nearest_rows_that_pass(
        self, searched: Client, filters: Filters, condition: str
    ) -> None:
        target = [0.25] * DIMENSION

        result = search(searched, TABLE, Target.vector(target), limit=8, filters=filters)

        expected = searched.query(
            f"SELECT id FROM {TABLE} WHERE {condition} "
            "ORDER BY cosineDistance(image_embedding, {v:Array(Float32)})",
            parameters={"v": target},
        ).result_rows
        passing = [row[0] for row in expected]
        assert passing
        assert set(ids(result)) <= set(passing)
        assert nearly_all(ids(result), passing[:8])

    def test_a_filter_that_leaves_hardly_any_row_reads_them_all(self, searched: Client) -> None:
        few = searched.query(
            f"SELECT id, similarity FROM {TABLE} WHERE similarity > 0 "
            "ORDER BY similarity DESC LIMIT 3"
        ).result_rows
        filters = {"min_similarity": few[-1][1]}
        passing = searched.query(
            f"SELECT id FROM {TABLE} WHERE NOT similarity < {{s:Float32}}",
            parameters={"s": few[-1][1]},
        ).result_rows

        target = Target.vector([0.25] * DIMENSION)
        result = search(searched, TABLE, target, limit=len(passing) + 1, filters=filters)

        assert result.is_exact
        assert {hit.id for hit in result.hits} == {row[0] for row in passing}
        assert {row[0] for row in few} <= {hit.id for hit in result.hits}


class TestProfile:
    def test_the_settings_stored_for_the_table_in_use_are_used(self, searched: Client) -> None:
        plan = read_search_plan(searched, TABLE, "image_embedding")
        profile = read_profile(searched, TABLE, "image_embedding", plan)

        result = search(searched, TABLE, Target.vector([0.25] * DIMENSION))

        assert profile.settings().items() >= {"hnsw_candidate_list_size_for_search": 64}.items()
        view = searched.command(f"SHOW CREATE VIEW {TABLE}_near")
        assert f"{TABLE}_near" in result.sql
        assert "hnsw_candidate_list_size_for_search = 64" in str(view)

    def test_a_profile_that_an_earlier_release_stored_is_used(self, searched: Client) -> None:
        plan = read_search_plan(searched, TABLE, "text_embedding")
        row = {"table": TABLE, "build_id": plan.build_id, "column": "text_embedding"}
        insert_rows(searched, "search_profiles", [{**row, "ef": 777, "multiplier": 3}])

        profile = read_profile(searched, TABLE, "text_embedding", plan)

        assert profile == HnswProfile(777, 3)

    def test_a_build_that_was_not_measured_is_searched_as_by_default(
        self, searched: Client
    ) -> None:
        plan = read_search_plan(searched, TABLE, "image_embedding")

        unknown = replace(plan, build_id="00000000")

        assert read_profile(searched, TABLE, "image_embedding", unknown) == HnswProfile()

    def test_without_a_search_table_it_says_how_to_get_one(self, client: Client) -> None:
        make_tables(client)

        with pytest.raises(SearchTableMissing, match="run laion_ingest with build_index"):
            search(client, TABLE, Target.vector([0.25] * DIMENSION))


class TestTutorial:
    def test_its_query_finds_what_numpy_finds(self, searched: Client, source: Path) -> None:
        target = read_vectors(source, "text_embedding", 0)[0]

        result = search_tutorial(searched, TABLE, target.tolist(), limit=5)

        rows = searched.query(
            f"SELECT id, image_embedding FROM {TABLE} WHERE similarity >= 0.2"
        ).result_rows
        distances = np.linalg.norm(np.array([row[1] for row in rows]) - target, axis=1)
        nearest = np.argsort(distances)[:5]
        assert [hit.id for hit in result.hits] == [rows[i][0] for i in nearest]
        np.testing.assert_allclose(
            [hit.distance for hit in result.hits], distances[nearest], rtol=1e-4
        )


class TestRefusal:
    def test_a_missing_row_is_named(self, searched: Client) -> None:
        with pytest.raises(RowMissing, match="987654321"):
            Target.row(searched, TABLE, 987654321, "image_embedding")

    def test_an_unknown_column_is_refused_with_the_known_ones(self, searched: Client) -> None:
        with pytest.raises(BadRequest, match="image_embedding, text_embedding"):
            search(searched, TABLE, Target.vector([0.25] * DIMENSION), column="caption")

    def test_a_vector_of_another_length_is_typed(self, searched: Client) -> None:
        with pytest.raises(ClickHouseError):
            search(searched, TABLE, Target.vector([0.25] * 3))


def test_a_table_of_bfloat16_is_built_measured_and_searched_alike(
    client: Client, source: Path, tmp_path: Path
) -> None:
    ensure_ledger(client)
    ensure_base_table(client, TABLE, IDENTITY, element_type="BFloat16")
    publish_files(client, source, 0, tmp_path)
    build_search(client, OPTIONS, target=0.8)
    vector = read_vectors(source, "text_embedding", 0)[7].tolist()

    exact = search(client, TABLE, Target.vector(vector), limit=5, exact=True)
    indexed = search(client, TABLE, Target.vector(vector), limit=5)
    by_l2 = search_tutorial(client, TABLE, vector, limit=5)

    assert nearly_all(ids(indexed), ids(exact))
    assert ids(by_l2) == ids(exact)
