"""Inverted lists: trained on a sample of rows, in two levels, and every row put into one of them.

Rows are float32 of shape (rows, dimension) and of length 1. Lists are numbered group by group: a
row is compared with the centroids of a few groups instead of all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from laion.clickhouse.search_table.kinds import MOST_LISTS_OF_AUTO

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

LISTS_PER_ROOT = 4
"""About so many lists times the square root of the rows."""
LEAST_ROWS_PER_LIST = 2
"""Of the sample. A mean of two says little, but as many lists as may be asked for need no more."""
SAMPLE_ROWS_PER_LIST = 40
SAMPLE_BYTES = 1_200_000_000
"""A sample is not larger than this, so that training stays under 2 GB."""
GROUPS_ASKED = 8
"""Groups with whose centroids a row is compared: of 4,094 lists, 1.4 % of made-up rows then are not
in the nearest one, for 21 CPU microseconds a row; of 4 groups it is 5.3 %, for 11."""
ROUNDS = 8
BLOCK = 16_384
"""Rows compared at once."""


LARGEST_LIST = 4
"""Times the mean size; in training, larger ones are split."""


def lists_for(rows: int, kept: int = 0) -> int:
    """Return how many lists suit a table: a power of two, or as many as are `kept`.

    Those are too few once more than twice as many would suit.
    """
    suitable = min(MOST_LISTS_OF_AUTO, LISTS_PER_ROOT * math.sqrt(max(1, rows)))
    return kept if 2 * kept >= suitable else 1 << round(math.log2(suitable))


def sample_rows_for(lists: int, dimension: int) -> int:
    """Return how many rows of a dimension to train lists on."""
    return min(lists * SAMPLE_ROWS_PER_LIST, SAMPLE_BYTES // (4 * dimension))


@dataclass(frozen=True)
class InvertedLists:
    """Centroids in groups.

    `centroids` is of shape (lists, dimension); those of group g are
    `centroids[starts[g] : starts[g + 1]]`, which is not empty.
    """

    centroids: Vectors
    starts: Numbers

    @cached_property
    def groups(self) -> Vectors:
        """The mean of each group's centroids, of shape (groups, dimension)."""
        sizes = np.diff(self.starts).astype(np.float32)
        means: Vectors = np.add.reduceat(self.centroids, self.starts[:-1], axis=0)
        means /= sizes[:, None]
        return means

    def __len__(self) -> int:
        return len(self.centroids)

    def assign(self, rows: Vectors, groups_asked: int = GROUPS_ASKED) -> Numbers:
        """Return each row's list, nearly always the one with the nearest centroid."""
        return self.place(rows, groups_asked)[0]

    def place(self, rows: Vectors, groups_asked: int = GROUPS_ASKED) -> tuple[Numbers, Vectors]:
        """Return each row's list, as `assign`, and its squared distance from the centroid."""
        lists, far = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
        for block in _blocks(len(rows)):
            found = self._place(rows[block], min(groups_asked, len(self.groups)))
            lists[block], far[block] = found
        # Rows are of length 1.
        return lists, np.maximum(far + 1, 0)

    def share_not_nearest(self, rows: Vectors) -> float:
        """Return the share of rows that `assign` puts into another list than the nearest."""
        return float(np.mean(self.assign(rows) != nearest(rows, self.centroids)))

    def _place(self, rows: Vectors, groups_asked: int) -> tuple[Numbers, Vectors]:
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
        return lists, best


def train(sample: Vectors, lists: int, *, seed: int) -> InvertedLists:
    """Return lists for rows like those of a sample: about as many as wanted, fewer for few rows.

    Each group gets lists by its share of the sample. The same sample and seed give the same lists.
    """
    random = np.random.default_rng(seed)
    lists = max(1, min(lists, len(sample) // LEAST_ROWS_PER_LIST))
    own = nearest(sample, k_means(sample, round(math.sqrt(lists)), random))
    centroids = []
    for group in np.unique(own).tolist():
        rows = sample[own == group]
        wanted = round(lists * len(rows) / len(sample))
        some = k_means(rows, max(1, min(wanted, len(rows) // LEAST_ROWS_PER_LIST)), random)
        centroids.append(_split(some, rows, len(sample) / lists, random))
    starts = np.concatenate([[0], np.cumsum([len(some) for some in centroids])])
    return InvertedLists(np.concatenate(centroids), starts)


def _split(
    centroids: Vectors, rows: Vectors, mean_size: float, random: np.random.Generator
) -> Vectors:
    """Return the centroids of rows, with several in the place of one that has far too many rows."""
    own = nearest(rows, centroids)
    sizes = np.bincount(own, minlength=len(centroids))
    parts = []
    for number, size in enumerate(sizes.tolist()):
        if size <= LARGEST_LIST * mean_size:
            parts.append(centroids[number : number + 1])
        else:
            parts.append(k_means(rows[own == number], round(size / mean_size), random))
    return np.concatenate(parts)


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


def _sums(rows: Vectors, own: Numbers, count: int) -> Vectors:
    """Return the sum of the rows of each of `count` clusters."""
    sums = np.zeros((count, rows.shape[1]), np.float32)
    for block in _blocks(len(rows)):
        order = np.argsort(own[block], kind="stable")
        there, first = np.unique(own[block][order], return_index=True)
        sums[there] += np.add.reduceat(rows[block][order], first, axis=0)
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
