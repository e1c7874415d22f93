from __future__ import annotations

import numpy as np
import pytest

from laion.clickhouse.search_table.brute_force import ExactNearest, Floats

DEPTH = 20


def distances(queries: Floats, rows: Floats, metric: str) -> Floats:
    queries, rows = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "L2Distance":
        return np.linalg.norm(queries[:, None] - rows[None], axis=2)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return 1 - queries @ rows.T


def search(
    queries: Floats, rows: Floats, metric: str, batch: int
) -> list[tuple[list[int], list[float]]]:
    nearest = ExactNearest(queries, metric, DEPTH)
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        nearest.add(100 + np.arange(first, first + len(some)), some)
    return nearest.result()


@pytest.mark.parametrize("metric", ["cosineDistance", "L2Distance"])
@pytest.mark.parametrize("batch", [1, 7, 500, 10_000])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_it_finds_what_all_distances_say(metric: str, batch: int, length: float) -> None:
    random = np.random.default_rng(batch)
    rows = (length * random.standard_normal((2000, 24))).astype(np.float32)
    queries = (length * random.standard_normal((9, 24))).astype(np.float32)
    wanted = distances(queries, rows, metric)

    found = search(queries, rows, metric, batch)

    for query, (ids, near) in enumerate(found):
        assert ids == (100 + np.argsort(wanted[query])[:DEPTH]).tolist()
        np.testing.assert_allclose(near, np.sort(wanted[query])[:DEPTH], rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosineDistance", "L2Distance"])
def test_copies_of_the_query_are_at_no_distance(metric: str) -> None:
    row = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    rows = np.stack([row, -row, row])

    [(ids, near)] = search(row[None], rows, metric, 2)

    assert ids == [100, 102, 101]
    np.testing.assert_allclose(near[:2], 0, atol=1e-12)


def test_fewer_rows_than_are_kept_are_all_found() -> None:
    rows = np.eye(3, 8, dtype=np.float32)

    [(ids, _)] = search(rows[:1], rows, "cosineDistance", 2)

    assert ids == [100, 101, 102]


def test_without_rows_nothing_is_found() -> None:
    assert ExactNearest(np.eye(2, dtype=np.float32), "L2Distance", DEPTH).result() == [([], [])] * 2
