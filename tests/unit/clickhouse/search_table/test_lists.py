"""Inverted lists: trained, and rows put into them."""

from __future__ import annotations

import numpy as np
import pytest

from laion.clickhouse.search_table.kinds import MOST_LISTS, MOST_LISTS_OF_AUTO
from laion.clickhouse.search_table.kinds.ivf.lists import (
    InvertedLists,
    Vectors,
    lists_for,
    nearest,
    sample_rows_for,
    train,
)

DIMENSION = 32
CLUSTERS = 50


def units(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def clustered(rows: int, seed: int = 0) -> Vectors:
    """Rows around a few points, more around the first of them."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLUSTERS, DIMENSION))
    weights = 1 / np.arange(1, CLUSTERS + 1)
    own = random.choice(CLUSTERS, rows, p=weights / weights.sum())
    noise = random.standard_normal((rows, DIMENSION))
    return units((centres[own] + 0.4 * noise).astype(np.float32))


@pytest.fixture(scope="module")
def lists() -> InvertedLists:
    return train(clustered(8000), 200, seed=3)


class TestTraining:
    def test_there_are_about_as_many_lists_as_wanted_and_none_is_in_no_group(
        self, lists: InvertedLists
    ) -> None:
        assert 180 <= len(lists) <= 220
        assert lists.starts[0] == 0
        assert lists.starts[-1] == len(lists)
        assert (np.diff(lists.starts) > 0).all()

    def test_the_same_sample_and_seed_give_the_same_lists(self) -> None:
        first, again, other = (train(clustered(2000), 60, seed=seed) for seed in (3, 3, 4))

        np.testing.assert_array_equal(first.centroids, again.centroids)
        assert first.centroids.shape != other.centroids.shape or not np.array_equal(
            first.centroids, other.centroids
        )

    def test_lists_are_nearer_to_rows_than_rows_chosen_by_chance(
        self, lists: InvertedLists
    ) -> None:
        rows = clustered(4000, seed=8)
        chance = rows[: len(lists)]

        def mean_distance(centroids: Vectors) -> float:
            own = centroids[nearest(rows[1000:], centroids)]
            return float(np.linalg.norm(rows[1000:] - own, axis=1).mean())

        assert mean_distance(lists.centroids) < 0.95 * mean_distance(chance)

    def test_no_list_has_much_more_than_its_share(self, lists: InvertedLists) -> None:
        sizes = np.bincount(lists.assign(clustered(20_000, seed=5)), minlength=len(lists))

        assert sizes.max() < 10 * sizes.mean()

    def test_a_list_that_has_far_too_many_rows_is_split(self) -> None:
        few = clustered(2000)
        dense = units(few[:1] + 0.02 * np.random.default_rng(1).standard_normal((2000, DIMENSION)))
        sample = np.concatenate([few, dense.astype(np.float32)])

        lists = train(sample, 100, seed=3)

        assert np.bincount(lists.assign(sample)).max() < 6 * len(sample) / 100

    @pytest.mark.parametrize("rows", [1, 2, 7, 30])
    def test_of_few_rows_there_are_fewer_lists(self, rows: int) -> None:
        sample = clustered(rows)

        lists = train(sample, 200, seed=3)

        assert 1 <= len(lists) <= max(1, rows // 2)
        assert lists.assign(sample).max() < len(lists)

    def test_rows_that_are_all_the_same_are_in_one_list_at_least(self) -> None:
        sample = np.repeat(clustered(1), 500, axis=0)

        lists = train(sample, 20, seed=3)

        assert len(np.unique(lists.assign(sample))) == 1
        assert np.isfinite(lists.centroids).all()


class TestAssignment:
    def test_nearly_every_row_is_in_the_nearest_list(self, lists: InvertedLists) -> None:
        rows = clustered(5000, seed=6)

        assert lists.share_not_nearest(rows) < 0.05
        all_groups = lists.assign(rows, groups_asked=len(lists.groups))
        np.testing.assert_array_equal(all_groups, nearest(rows, lists.centroids))

    def test_no_row_has_no_list(self, lists: InvertedLists) -> None:
        assert lists.assign(np.empty((0, DIMENSION), np.float32)).tolist() == []

    def test_it_does_not_depend_on_what_is_assigned_beside(self, lists: InvertedLists) -> None:
        rows = clustered(300, seed=7)

        alone = [int(lists.assign(row[None])[0]) for row in rows]

        assert lists.assign(rows).tolist() == alone


@pytest.mark.parametrize(
    ("rows", "lists"),
    [(1, 4), (10_000, 512), (1_000_000, 4096), (407_314_954, MOST_LISTS_OF_AUTO)],
)
def test_lists_grow_with_the_root_of_the_rows(rows: int, lists: int) -> None:
    assert lists_for(rows) == lists


@pytest.mark.parametrize(
    ("rows", "kept", "lists"),
    [
        (1_000_000, 4096, 4096),
        (4_000_000, 4096, 4096),
        (4_300_000, 4096, 8192),
        (1_000, 4096, 4096),
        (407_314_954, MOST_LISTS, MOST_LISTS),
        (407_314_954, 16_384, MOST_LISTS_OF_AUTO),
    ],
)
def test_lists_are_kept_until_there_are_far_too_few(rows: int, kept: int, lists: int) -> None:
    assert lists_for(rows, kept) == lists


def test_a_sample_stays_within_its_bytes() -> None:
    assert sample_rows_for(4000, 512) == 160_000
    assert sample_rows_for(MOST_LISTS, 512) * 512 * 4 <= 1_200_000_000
