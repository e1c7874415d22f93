from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search import search_exact, search_index
from laion.clickhouse.statements import statement
from laion.clickhouse.vector_index import IndexOptions, build_search_table
from laion.errors import ClickHouseError
from tests.shard_files import DIMENSION, read_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, make_tables, publish_files

SHARDS = (0, 1)
ROWS = 400
SEARCH = f"{TABLE}_search"
# Unrounded, so that near ties come in the order of the exact search.
OPTIONS = IndexOptions(quantization="f32", m=16, ef_construction=64)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    for shard in SHARDS:
        write_little_shard(directory, shard, ROWS)
    return directory


@pytest.fixture(scope="module")
def searched(
    fresh_database: Callable[[], AbstractContextManager[Client]],
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A base table of two shards and its search table."""
    directory = tmp_path_factory.mktemp("staging")
    with fresh_database() as client:
        make_tables(client)
        for shard in SHARDS:
            publish_files(client, source, shard, directory)
        build_search_table(client, TABLE, DIMENSION, "cccc0001", OPTIONS)
        yield client


def test_the_index_answers_the_query(searched: Client) -> None:
    plan = searched.query(
        "EXPLAIN indexes = 1 " + statement("index_search", table=SEARCH),
        parameters={"target": [0.25] * DIMENSION, "limit": 5},
    ).result_rows

    text = "\n".join(row[0] for row in plan)
    assert "Name: image_index" in text
    assert "vector_similarity" in text


def test_exact_and_indexed_search_agree_on_the_nearest(searched: Client, source: Path) -> None:
    for target in read_vectors(source, "text_embedding", 1)[:10]:
        exact = search_exact(searched, TABLE, target.tolist(), limit=5)
        indexed = search_index(searched, TABLE, target.tolist(), limit=5)

        assert [hit.id for hit in indexed.hits] == [hit.id for hit in exact.hits]


def test_exact_search_finds_what_numpy_finds(searched: Client, source: Path) -> None:
    target = read_vectors(source, "text_embedding", 0)[0]

    result = search_exact(searched, TABLE, target.tolist(), limit=5)

    rows = searched.query(
        f"SELECT id, image_embedding FROM {TABLE} WHERE similarity >= 0.2"
    ).result_rows
    distances = np.linalg.norm(np.array([row[1] for row in rows]) - target, axis=1)
    nearest = np.argsort(distances)[:5]
    assert [hit.id for hit in result.hits] == [rows[i][0] for i in nearest]
    np.testing.assert_allclose([hit.distance for hit in result.hits], distances[nearest], rtol=1e-4)


def test_a_hit_tells_url_and_caption(searched: Client, source: Path) -> None:
    target = read_vectors(source, "image_embedding", 0)[7]

    hit = search_exact(searched, TABLE, target.tolist(), limit=1).hits[0]

    (row,) = searched.query(f"SELECT url, caption FROM {TABLE} WHERE id = {hit.id}").result_rows
    assert (hit.url, hit.caption) == tuple(row)


def test_a_missing_search_table_is_typed(client: Client) -> None:
    with pytest.raises(ClickHouseError, match=f"search {SEARCH}"):
        search_index(client, TABLE, [0.25] * DIMENSION)
