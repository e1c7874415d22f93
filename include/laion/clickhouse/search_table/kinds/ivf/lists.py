"""Inverted lists: trained on a sample of rows, in two levels, and every row put into one of them.

Rows are float32 of shape (rows, dimension) and of length 1. Lists are numbered group by group: a
row is compared with the centroids of a few groups instead of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

LISTS_PER_ROOT = 4
"""So many lists times the square root of the rows."""
MOST_LISTS = 65_536
LEAST_ROWS_PER_LIST = 4
"""Of the sample: of fewer, a mean says little."""
SAMPLE_ROWS_PER_LIST = 40
SAMPLE_BYTES = 1_200_000_000
"""A sample is not larger than this, so that training stays under 2 GB."""
GROUPS_ASKED = 8
"""Groups with whose centroids a row is compared: of 4,094 lists, 1.4 % of made-up rows then are not
in the nearest one, for 21 CPU microseconds a row; of 4 groups it is 5.3 %, for 11."""
ROUNDS = 8
BLOCK = 16_384
"""Rows compared at once."""


def lists_for(rows: int, most: int = MOST_LISTS) -> int:
    """Return how many lists suit a table."""
    return max(1, min(most, round(LISTS_PER_ROOT * math.sqrt(rows))))


def sample_rows_for(lists: int, dimension: int) -> int:
    """Return how many rows of a dimension to train lists on."""
    return min(lists * SAMPLE_ROWS_PER_LIST, SAMPLE_BYTES // (4 * dimension))


@dataclass(frozen=True)
class InvertedLists:
    """Centroids in groups.

    `groups` is of shape (groups, dimension), `centroids` of shape (lists, dimension); those of
    group g are `centroids[starts[g] : starts[g + 1]]`, which is not empty.
    """

    groups: Vectors
    centroids: Vectors
    starts: Numbers

    def __len__(self) -> int:
        return len(self.centroids)

    def assign(self, rows: Vectors, groups_asked: int = GROUPS_ASKED) -> Numbers:
        """Return each row's list, nearly always the one with the nearest centroid."""
        lists = np.empty(len(rows), np.int64)
        for block in _blocks(len(rows)):
            lists[block] = self._assign(rows[block], min(groups_asked, len(self.groups)))
        return lists

    def share_not_nearest(self, rows: Vectors) -> float:
        """Return the share of rows that `assign` puts into another list than the nearest."""
        return float(np.mean(self.assign(rows) != nearest(rows, self.centroids)))

    def _assign(self, rows: Vectors, groups_asked: int) -> Numbers:
        far = _far(rows, self.groups)
        asked = np.argpartition(far, groups_asked - 1, axis=1)[:, :groups_asked].ravel()
        by_group = np.argsort(asked, kind="stable")
        bounds = np.searchsorted(asked[by_group], np.arange(len(self.groups) + 1))
        places = by_group // groups_asked
        best = np.full(len(rows), np.inf, np.float32)
        lists = np.zeros(len(rows), np.int64)
        for group in np.flatnonzero(np.diff(bounds)).tolist():
            own = places[bounds[group] : bounds[group + 1]]
            first, end = self.starts[group], self.starts[group + 1]
            far = _far(rows[own], self.centroids[first:end])
            found = far.argmin(axis=1)
            distance = far[np.arange(len(own)), found]
            nearer = distance < best[own]
            best[own[nearer]] = distance[nearer]
            lists[own[nearer]] = first + found[nearer]
        return lists


def train(sample: Vectors, lists: int, *, seed: int) -> InvertedLists:
    """Return lists for rows like those of a sample: about as many as wanted, fewer for few rows.

    Each group gets lists by its share of the sample. The same sample and seed give the same lists.
    """
    random = np.random.default_rng(seed)
    lists = max(1, min(lists, len(sample) // LEAST_ROWS_PER_LIST))
    groups = k_means(sample, round(math.sqrt(lists)), random)
    own = nearest(sample, groups)
    sizes = np.bincount(own, minlength=len(groups))
    groups, sizes = groups[sizes > 0], sizes[sizes > 0]
    own = nearest(sample, groups)
    centroids = []
    for group in range(len(groups)):
        rows = sample[own == group]
        wanted = round(lists * len(rows) / len(sample))
        centroids.append(
            k_means(rows, max(1, min(wanted, len(rows) // LEAST_ROWS_PER_LIST)), random)
        )
    starts = np.concatenate([[0], np.cumsum([len(some) for some in centroids])])
    return InvertedLists(groups, np.concatenate(centroids), starts)


def k_means(rows: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """Return the means of `count` clusters of rows, of which there must be as many."""
    centroids: Vectors = rows[random.choice(len(rows), count, replace=False)]
    for _ in range(ROUNDS if count > 1 else 1):
        own = nearest(rows, centroids)
        sizes = np.bincount(own, minlength=count)
        means = _sums(rows, own, count)
        means /= np.maximum(sizes, 1)[:, None]
        # A cluster that has lost its rows takes a part of the largest, which is split that way.
        parts = sizes.astype(np.float64)
        for empty in np.flatnonzero(sizes == 0).tolist():
            largest = int(parts.argmax())
            means[empty] = rows[random.choice(np.flatnonzero(own == largest))]
            parts[largest] /= 2
        centroids = means
    return centroids


def nearest(rows: Vectors, centroids: Vectors) -> Numbers:
    """Return the number of each row's nearest centroid."""
    found = np.empty(len(rows), np.int64)
    for block in _blocks(len(rows)):
        found[block] = _far(rows[block], centroids).argmin(axis=1)
    return found


class ListStatistics:
    """Of every list how many rows it has, their mean, and how far they are from it.

    A mean is not brought to length 1: where rows lie apart it is short.
    """

    def __init__(self, lists: int, dimension: int) -> None:
        self.rows = np.zeros(lists, np.int64)
        self._sums = np.zeros((lists, dimension))

    def add(self, rows: Vectors, lists: Numbers) -> None:
        """Count rows in."""
        self.rows += np.bincount(lists, minlength=len(self.rows))
        self._sums += _sums(rows, lists, len(self.rows))

    def means(self) -> Vectors:
        """Return the mean of each list, float32 of shape (lists, dimension); zero where empty."""
        means: Vectors = (self._sums / np.maximum(self.rows, 1)[:, None]).astype(np.float32)
        return means

    def spreads(self) -> Vectors:
        """Return the root of the mean squared distance of each list's rows from their mean."""
        squares = np.einsum("ij,ij->i", self._sums, self._sums) / np.maximum(self.rows, 1) ** 2
        spreads: Vectors = np.sqrt(np.maximum(0, 1 - squares)).astype(np.float32)
        return spreads


def _sums(rows: Vectors, own: Numbers, count: int) -> Vectors:
    """Return the sum of the rows of each of `count` clusters."""
    sums = np.zeros((count, rows.shape[1]), np.float32)
    order = np.argsort(own, kind="stable")
    there, first = np.unique(own[order], return_index=True)
    if len(there):
        sums[there] = np.add.reduceat(rows[order], first, axis=0)
    return sums


def _far(rows: Vectors, centroids: Vectors) -> Vectors:
    """Return squared distances less what is the same for all centroids: (rows, centroids)."""
    far: Vectors = np.matmul(rows, centroids.T)
    far *= -2
    far += np.einsum("ij,ij->i", centroids, centroids)
    return far


def _blocks(rows: int) -> Iterator[slice]:
    for first in range(0, rows, BLOCK):
        yield slice(first, first + BLOCK)
