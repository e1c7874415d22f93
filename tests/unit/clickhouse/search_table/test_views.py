"""A search as one statement: the views, and the library that asks them, of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table.filters import Filters
from laion.clickhouse.search_table.in_use import read_state
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.kinds.ivf import Ivf
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.search import SearchResult, Target, search
from laion.errors import BadRequest
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, build_search, make_tables, publish_files

ROWS = 400
SHARDS = (0, 1, 2)
VECTOR = [1.0, *([0.25] * (DIMENSION - 1))]
COPIED = 100_000_020
"""A row of which there is a copy at another URL, and one with the same URL."""
COPIES = (COPIED, COPIED + 500, COPIED + 501)
OPTIONS = {
    "exact": IndexOptions(kind="exact", quantization="auto", min_bucket_rows=1),
    "hnsw": IndexOptions(quantization="f32", parameters={"m": 32}, buckets=2, min_bucket_rows=1),
    "quantized": IndexOptions(kind="quantized", quantization="auto", buckets=2, min_bucket_rows=1),
    "ivf": IndexOptions(kind="ivf", quantization="auto", buckets=2, min_bucket_rows=1),
}
CASES: list[tuple[Filters, str, str]] = [
    ({"nsfw": ["NSFW", "UNSURE"]}, "nsfw = 'NSFW,UNSURE'", "NSFW IN ('NSFW', 'UNSURE')"),
    ({"min_similarity": 0.3}, "min_similarity = 0.3", "NOT similarity < toFloat32(0.3)"),
    ({"min_width": 256}, "min_width = 256, nsfw = NULL", "width >= 256"),
    (
        {"licenses": ["?"], "min_height": 200},
        "licenses = '?', min_height = 200",
        "LICENSE = '?' AND height >= 200",
    ),
    ({"caption_has": "IN THE"}, "caption_has = 'in the'", "caption ILIKE '%in the%'"),
]


@pytest.fixture(scope="module", params=OFFERS)
def searched(
    request: pytest.FixtureRequest,
    fresh_database: Callable[[], AbstractContextManager[Client]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A base table of three shards and its search table, for tests that do not change them."""
    directory = tmp_path_factory.mktemp("source")
    with fresh_database() as client:
        make_tables(client)
        for shard in SHARDS:
            write_little_shard(directory, shard, ROWS)
            publish_files(client, directory, shard, directory)
        for row, url in zip(COPIES[1:], ("'https://elsewhere.example/1'", "url"), strict=True):
            client.command(
                f"INSERT INTO {TABLE} SELECT * REPLACE ({row} AS id, {url} AS url) FROM {TABLE} "
                f"WHERE {TABLE}.id = {COPIED}"
            )
        with pytest.MonkeyPatch.context() as patch:
            # What is found does not depend here on which inverted lists are read.
            patch.setattr(Ivf, "ladder", Ivf.ladder[-1:])
            build_search(client, OPTIONS[request.param], target=0.9)
        yield client


def nearest(client: Client, where: str = "1", limit: int = 10) -> list[int]:
    """Return what brute force finds in the base table."""
    rows = client.query(
        f"SELECT id FROM {TABLE} WHERE {where} "
        f"ORDER BY cosineDistance(image_embedding, {{v:Array(Float32)}}), id LIMIT {limit}",
        parameters={"v": VECTOR},
    ).result_rows
    return [row[0] for row in rows]


def ask(client: Client, arguments: str) -> list[dict[str, Any]]:
    return list(client.query(f"SELECT * FROM {TABLE}_near({arguments})").named_results())


def ids(found: list[dict[str, Any]] | SearchResult) -> list[int]:
    rows = [hit.id for hit in found.hits] if isinstance(found, SearchResult) else found
    return [row if isinstance(row, int) else row["id"] for row in rows]


def is_nearly(found: list[int], expected: list[int]) -> bool:
    """Whether an index found these rows but for one in ten, in any order of the nearly equal."""
    return len(found) == len(expected) and len(set(found) & set(expected)) >= 0.9 * len(expected)


def test_the_view_needs_the_vector_alone(searched: Client) -> None:
    rows = ask(searched, f"q = {VECTOR}")

    assert is_nearly(ids(rows), nearest(searched))
    assert {"id", "distance", "url", "caption", "shard", "key"} <= rows[0].keys()
    assert not {"image_embedding", "text_embedding", "is_copy"} & rows[0].keys()
    assert np.all(np.diff([row["distance"] for row in rows]) >= 0)


def test_one_row_is_searched_for_as_thoroughly_as_many(searched: Client) -> None:
    (one,) = ask(searched, f"q = {VECTOR}, k = 1")

    assert one["id"] == nearest(searched)[0]


@pytest.mark.parametrize(("filters", "arguments", "where"), CASES)
def test_filters_are_parameters(
    searched: Client, filters: Filters, arguments: str, where: str
) -> None:
    rows = ask(searched, f"q = {VECTOR}, k = 20, {arguments}")
    found = search(searched, TABLE, Target.vector(VECTOR), limit=20, filters=filters)

    passing = set(nearest(searched, where, limit=10_000))
    assert len(passing) > 20
    assert set(ids(rows)) <= passing
    assert is_nearly(ids(found), nearest(searched, where, limit=20))
    if read_state(searched, TABLE).views[f"{TABLE}_near"].options.kind != "hnsw":
        assert ids(rows) == ids(found)


def test_values_of_a_filter_may_have_spaces_between_them(searched: Client) -> None:
    rows = ask(searched, f"q = {VECTOR}, k = 20, nsfw = 'NSFW, UNSURE'")

    assert ids(rows) == ids(ask(searched, f"q = {VECTOR}, k = 20, nsfw = 'NSFW,UNSURE'"))


def test_a_text_is_no_list_of_values(searched: Client) -> None:
    with pytest.raises(BadRequest, match=r"nsfw is a list of values, such as \['NSFW'\]"):
        search(searched, TABLE, Target.vector(VECTOR), filters={"nsfw": "NSFW"})


def test_a_filter_s_value_with_a_comma_is_one_value(searched: Client) -> None:
    filters = {"licenses": ["no such, one"], "nsfw": ["UNLIKELY"]}

    assert search(searched, TABLE, Target.vector(VECTOR), filters=filters).hits == []


def test_each_vector_has_a_view(searched: Client) -> None:
    own = "(SELECT text_embedding FROM little WHERE id = 200000003)"

    found = searched.query(f"SELECT id FROM {TABLE}_near_text(q = {own}, k = 1)")

    assert found.result_rows == [(200_000_003,)]
    assert set(read_state(searched, TABLE).views) == {f"{TABLE}_near", f"{TABLE}_near_text"}


@pytest.mark.parametrize("words", ["some_words('a cat')", "(SELECT some_words('a cat'))"])
def test_the_vector_may_be_a_call_or_a_query(searched: Client, words: str) -> None:
    searched.command(f"CREATE OR REPLACE FUNCTION some_words AS text -> {VECTOR}")
    try:
        rows = ask(searched, f"q = {words}")
    finally:
        searched.command("DROP FUNCTION some_words")

    assert is_nearly(ids(rows), nearest(searched))


class TestDistinct:
    OWN = f"(SELECT image_embedding FROM {TABLE} WHERE id = {COPIED})"

    def test_without_it_all_copies_come(self, searched: Client) -> None:
        assert ids(ask(searched, f"q = {self.OWN}, k = 3")) == list(COPIES)

    def test_the_nearest_of_copies_comes_alone(self, searched: Client) -> None:
        rows = ask(searched, f"q = {self.OWN}, k = 10, distinct = true")

        assert rows[0]["id"] == COPIED
        assert len(rows) == 10
        assert not set(COPIES[1:]) & set(ids(rows))

    def test_the_library_asks_the_same(self, searched: Client) -> None:
        target = Target.row(searched, TABLE, 7, "image_embedding")
        rows = ask(searched, f"q = (SELECT image_embedding FROM {TABLE} WHERE id = 7), k = 100")

        found = search(searched, TABLE, target, limit=100, distinct=True)
        exact = search(searched, TABLE, target, limit=100, distinct=True, exact=True)

        assert len({hit.values["url"] for hit in exact.hits}) == 100
        assert is_nearly(ids(found), ids(exact))
        assert 7 in ids(rows)
        assert 7 not in ids(found)

    def test_rows_without_a_url_are_not_copies(self, client: Client, tmp_path: Path) -> None:
        make_tables(client)
        write_little_shard(tmp_path, 0, 50)
        publish_files(client, tmp_path, 0, tmp_path)
        client.command(f"CREATE TABLE own AS {TABLE}")
        client.command(f"INSERT INTO own SELECT * REPLACE ('' AS url) FROM {TABLE}")
        client.command(f"ALTER TABLE {TABLE} REPLACE PARTITION 0 FROM own")
        for options in OPTIONS.values():
            build_search(client, replace(options, buckets=1))

            assert len(ask(client, f"q = {VECTOR}, distinct = true")) == 10


@pytest.mark.parametrize("kind", OFFERS)
class TestOwnColumns:
    """What the owner of the base table has done to it."""

    @pytest.fixture
    def own(self, client: Client, tmp_path: Path, kind: str) -> Client:
        make_tables(client)
        client.command(f"ALTER TABLE {TABLE} ADD COLUMN found UInt8 DEFAULT 7")
        client.command(f"ALTER TABLE {TABLE} ADD COLUMN distance UInt8 DEFAULT 7")
        client.command(f"ALTER TABLE {TABLE} ADD COLUMN mine String DEFAULT 'my own'")
        values = "'UNLIKELY' = 1, 'NSFW' = 2, 'UNSURE' = 3, '' = 4, '?' = 5"
        client.command(f"ALTER TABLE {TABLE} MODIFY COLUMN NSFW Enum8({values})")
        write_little_shard(tmp_path, 0, 300)
        publish_files(client, tmp_path, 0, tmp_path)
        build_search(client, OPTIONS[kind])
        return client

    def test_they_are_shown_whatever_their_names(self, own: Client) -> None:
        rows = ask(own, f"q = {VECTOR}")

        assert {(row["found"], row["mine"]) for row in rows} == {(7, "my own")}
        assert all(0 < row["distance"] < 1 for row in rows)

    def test_an_enum_is_filtered(self, own: Client) -> None:
        for rows in (
            ask(own, f"q = {VECTOR}, k = 300, nsfw = 'NSFW'"),
            search(own, TABLE, Target.vector(VECTOR), filters={"nsfw": ["NSFW"]}).hits,
            search(own, TABLE, Target.vector(VECTOR), filters={"nsfw": ["NSFW"]}, exact=True).hits,
        ):
            assert rows

    def test_without_a_column_of_theirs_searches_go_on(self, own: Client, kind: str) -> None:
        own.command(f"ALTER TABLE {TABLE} DROP COLUMN mine")

        rows = ask(own, f"q = {VECTOR}")

        assert len(rows) == 10
        assert ("mine" in rows[0]) == (kind == "hnsw")


class TestLibrary:
    def test_it_asks_the_view(self, searched: Client) -> None:
        found = search(searched, TABLE, Target.vector(VECTOR), limit=10)

        assert ids(found) == ids(ask(searched, f"q = {VECTOR}"))
        assert f"FROM `{TABLE}_near`(q = " in found.sql
        exact = read_state(searched, TABLE).plan.options.kind == "exact"
        assert (found.is_exact, found.is_fallback) == (exact, False)

    def test_more_like_a_row(self, searched: Client) -> None:
        target = Target.row(searched, TABLE, 100_000_007, "text_embedding")

        found = search(searched, TABLE, target, column="text_embedding", limit=5)
        exact = search(searched, TABLE, target, column="text_embedding", limit=5, exact=True)

        assert len(found.hits) == 5
        assert 100_000_007 not in ids(found)
        assert ids(found) == ids(exact)

    def test_without_a_view_it_asks_as_the_view_would(
        self, searched: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        by_view = search(searched, TABLE, Target.vector(VECTOR), distinct=True)
        name = f"{TABLE}_near_text"
        monkeypatch.setattr(
            "laion.clickhouse.search_table.search.view_names",
            lambda table, vectors: dict.fromkeys(vectors, "no such view"),
        )

        without = search(searched, TABLE, Target.vector(VECTOR), distinct=True)

        assert name not in without.sql
        assert "_near" not in without.sql
        assert ids(without) == ids(by_view)

    def test_zero_results_are_no_error(self, searched: Client) -> None:
        found = search(searched, TABLE, Target.vector(VECTOR), filters={"licenses": ["no such"]})

        assert found.hits == []
