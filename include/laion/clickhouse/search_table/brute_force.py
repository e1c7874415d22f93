"""The exact nearest of many rows to many queries, row batch by row batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


class ExactNearest:
    """Keeps the `depth` nearest rows of each query.

    `queries` are float32 of shape (queries, dimension), `metric` is cosineDistance or L2Distance.
    A matrix product in float32 chooses the rows; their distances are computed in float64.
    """

    def __init__(self, queries: Floats, metric: str, depth: int) -> None:
        self.metric, self.depth = metric, depth
        self.queries = queries.astype(np.float64)
        if metric == "cosineDistance":
            self.queries = _units(self.queries)
        self._for_scores = self.queries.astype(np.float32)
        self._limits = np.full(len(queries), np.inf, np.float32)
        self._ids = [np.empty(0, np.int64) for _ in queries]
        self._distances = [np.empty(0) for _ in queries]

    def add(self, ids: npt.NDArray[np.int64], rows: Floats) -> None:
        """Compare rows of shape (rows, dimension), of which none is zero or not finite."""
        scores = self._scores(rows)
        for query in np.flatnonzero((scores <= self._limits[:, None]).any(axis=1)).tolist():
            near = np.flatnonzero(scores[query] <= self._limits[query])
            if len(near) > self.depth:
                near = near[np.argpartition(scores[query, near], self.depth - 1)[: self.depth]]
            self._keep(query, ids[near], rows[near])

    def result(self) -> list[tuple[list[int], list[float]]]:
        """Return ids and distances of each query's nearest rows, nearest first."""
        found = []
        for ids, distances in zip(self._ids, self._distances, strict=True):
            order = np.lexsort((ids, distances))[: self.depth]
            found.append((ids[order].tolist(), distances[order].tolist()))
        return found

    def _scores(self, rows: Floats) -> npt.NDArray[np.float32]:
        """Return what is smaller the nearer a row is, of shape (queries, rows)."""
        own: npt.NDArray[np.float32] = rows.astype(np.float32, copy=False)
        scores: npt.NDArray[np.float32] = np.matmul(self._for_scores, own.T)
        squares = np.einsum("ij,ij->i", own, own)
        if self.metric == "cosineDistance":
            scores /= -np.sqrt(squares)
            return scores
        scores *= -2
        scores += squares
        return scores

    def _keep(self, query: int, ids: npt.NDArray[np.int64], rows: Floats) -> None:
        if self.metric == "cosineDistance":
            distances = 1 - _units(rows.astype(np.float64)) @ self.queries[query]
        else:
            distances = np.linalg.norm(rows - self.queries[query], axis=1)
        self._ids[query] = np.concatenate([self._ids[query], ids])
        self._distances[query] = np.concatenate([self._distances[query], distances])
        if len(self._ids[query]) >= self.depth:
            order = np.argpartition(self._distances[query], self.depth - 1)[: self.depth]
            self._ids[query] = self._ids[query][order]
            self._distances[query] = self._distances[query][order]
            self._limits[query] = self._limit(query)

    def _limit(self, query: int) -> np.float32:
        """Return the score of the farthest row that is kept."""
        farthest = self._distances[query].max()
        if self.metric == "cosineDistance":
            return np.float32(farthest - 1)
        square = self.queries[query] @ self.queries[query]
        return np.float32(farthest**2 - square)


def _units(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    units: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units
