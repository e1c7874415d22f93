"""Search by vector: exact over every row of a base table, or with the index of a search table."""

from __future__ import annotations

import time
from dataclasses import dataclass

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import search_table
from laion.clickhouse.statements import statement


@dataclass(frozen=True)
class Hit:
    """One result; the distance is in the metric of the query."""

    id: int
    url: str
    caption: str
    distance: float


@dataclass(frozen=True)
class SearchResult:
    """Hits, nearest first, and the seconds that the query took for the client."""

    hits: list[Hit]
    seconds: float


def search_exact(
    client: Client, table: str, target: list[float], *, limit: int = 10
) -> SearchResult:
    """Return the rows whose image embedding is nearest to `target` by L2, reading every row."""
    return _search(client, "tutorial_search", table, target, limit)


def search_index(
    client: Client, table: str, target: list[float], *, limit: int = 10
) -> SearchResult:
    """Return the rows whose image embedding is nearest to `target` by cosine, by the index.

    `table` is the base table's name. For vectors of unit length the order is that of L2.
    """
    return _search(client, "index_search", search_table(table), target, limit)


def _search(client: Client, name: str, table: str, target: list[float], limit: int) -> SearchResult:
    parameters = {"target": target, "limit": limit}
    with typed_errors(f"search {table}"):
        began = time.perf_counter()
        rows = client.query(statement(name, table=table), parameters=parameters).result_rows
        seconds = time.perf_counter() - began
    return SearchResult([Hit(*row) for row in rows], seconds)
