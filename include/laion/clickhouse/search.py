"""Search by vector, by words or by a row: with the index of a search table, or exactly.

Index searches use the settings that the recall gate found and stored for the table in use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, quote_string, search_table
from laion.clickhouse.statements import statement
from laion.errors import BadRequest, RowMissing
from laion.shards import VECTORS

MAX_CANDIDATES = 10_000
"""Rows that a filtered index search looks at before it reads the whole table instead."""
MAX_MULTIPLIER = 1000
"""ClickHouse's limit of vector_search_index_fetch_multiplier."""
WIDEN = 4
"""Times as many candidates when a filter has left too few."""


@dataclass(frozen=True)
class SearchProfile:
    """How thoroughly an index is searched.

    `ef` is hnsw_candidate_list_size_for_search. With a `multiplier`, so many candidates per result
    are fetched and ordered anew by their stored vectors; 0 takes the index's own order.
    """

    ef: int = 256
    multiplier: int = 0

    def __str__(self) -> str:
        rescored = f", rescoring ×{self.multiplier}" if self.multiplier else ""
        return f"ef {self.ef}{rescored}"

    def settings(self) -> dict[str, Any]:
        """Return the ClickHouse settings of a query."""
        return {
            "hnsw_candidate_list_size_for_search": self.ef,
            "vector_search_with_rescoring": int(self.multiplier > 0),
            "vector_search_index_fetch_multiplier": float(max(self.multiplier, 1)),
            "max_limit_for_vector_search_queries": MAX_CANDIDATES,
        }


@dataclass(frozen=True)
class Filters:
    """What rows must be like, beside near. Rows whose similarity is unknown (NaN) pass."""

    nsfw: Sequence[str] = ()
    licenses: Sequence[str] = ()
    min_similarity: float | None = None
    min_width: int = 0
    min_height: int = 0

    def conditions(self) -> dict[str, tuple[str, Any]]:
        """Return parameter → (condition, value) of the filters that are set."""
        known = {
            "nsfw": ("NSFW IN {nsfw:Array(String)}", list(self.nsfw) or None),
            "licenses": ("LICENSE IN {licenses:Array(String)}", list(self.licenses) or None),
            "min_similarity": ("NOT similarity < {min_similarity:Float32}", self.min_similarity),
            "min_width": ("width >= {min_width:UInt32}", self.min_width or None),
            "min_height": ("height >= {min_height:UInt32}", self.min_height or None),
        }
        return {name: (text, value) for name, (text, value) in known.items() if value is not None}


@dataclass(frozen=True)
class Hit:
    """One result; the distance is in the metric of the search."""

    id: int
    url: str
    caption: str
    similarity: float
    nsfw: str
    license: str
    width: int
    height: int
    distance: float


@dataclass(frozen=True)
class SearchResult:
    """Hits, nearest first; how they were found, and the seconds that took for the client.

    `sql` is the statement that was run, with its settings, and the `parameters` that stand in
    braces there.
    """

    hits: list[Hit]
    seconds: float
    sql: str
    is_exact: bool
    parameters: dict[str, Any] = field(default_factory=dict)

    def runnable_sql(self) -> str:
        """Return the statement with its parameters written out, to be run anywhere."""
        return re.sub(
            r"\{(\w+):[^}]*\}",
            lambda found: _literal(self.parameters[found[1]]),
            self.sql,
        )


@dataclass(frozen=True)
class Target:
    """What to be near to: an SQL expression and the parameters in it."""

    expression: str
    parameters: dict[str, Any] = field(default_factory=dict)
    not_row: int | None = None

    @classmethod
    def vector(cls, vector: Sequence[float]) -> Target:
        return cls("{target:Array(Float32)}", {"target": as_parameter(vector)})

    @classmethod
    def text(cls, text: str) -> Target:
        """Words, by the SQL function encode_text."""
        return cls("encode_text({text:String})", {"text": text})

    @classmethod
    def row(cls, client: Client, table: str, row_id: int, column: str) -> Target:
        """The vector of a row, which itself is no result. Raises RowMissing."""
        name = quote_identifier(search_table(table))
        query = f"SELECT {_checked(column)} FROM {name} WHERE id = {{row:Int64}}"
        with typed_errors(f"read row {row_id} of {search_table(table)}"):
            found = client.query(query, parameters={"row": row_id}).result_rows
        if not found:
            raise RowMissing(f"{search_table(table)} has no row with id {row_id}")
        return cls(f"({query})", {"row": row_id}, not_row=row_id)


def search(
    client: Client,
    table: str,
    target: Target,
    *,
    column: str = "image_embedding",
    limit: int = 10,
    filters: Filters | None = None,
    exact: bool = False,
) -> SearchResult:
    """Return the rows of `table`'s search table nearest to `target`, by the metric of its index.

    When a filter leaves too few of the index's candidates, more are fetched, and in the end every
    row is read. Raises ClickHouseError; BadRequest for an unknown column.
    """
    profile, metric = read_profile(client, table, _checked(column))
    conditions = (filters or Filters()).conditions()
    parameters = {**target.parameters, **{name: v for name, (_, v) in conditions.items()}}
    wheres = [text for text, _ in conditions.values()]
    if target.not_row is not None:
        wheres.append("id != {not_row:Int64}")
        parameters["not_row"] = target.not_row
    query = statement(
        "search",
        table=search_table(table),
        literals={
            "metric": metric,
            "column": column,
            "target": target.expression,
            "where": "WHERE " + " AND ".join(wheres) if wheres else "-- every row",
        },
    )
    began = time.perf_counter()
    parameters["limit"] = limit
    with typed_errors(f"search {search_table(table)}"):
        while True:
            settings = {"use_skip_indexes": 0} if exact else profile.settings()
            rows = client.query(query, parameters=parameters, settings=settings).result_rows
            if exact or not wheres or len(rows) >= limit:
                break
            multiplier = max(profile.multiplier, 1) * WIDEN
            profile = SearchProfile(profile.ef, multiplier)
            exact = multiplier > MAX_MULTIPLIER or multiplier * limit > MAX_CANDIDATES
    seconds = time.perf_counter() - began
    shown = ", ".join(f"{name} = {value}" for name, value in settings.items())
    hits = [Hit(*row) for row in rows]
    return SearchResult(hits, seconds, f"{query}\nSETTINGS {shown}", exact, parameters)


def read_profile(client: Client, table: str, column: str) -> tuple[SearchProfile, str]:
    """Return the stored settings of the search table in use, and its metric."""
    names = {"table": table, "search": search_table(table), "column": column}
    with typed_errors(f"read the search profile of {search_table(table)}"):
        rows = client.query(statement("search_profile"), parameters=names).result_rows
    if not rows:
        return SearchProfile(), "cosineDistance"
    return SearchProfile(rows[0][0], rows[0][1]), rows[0][2]


def search_tutorial(
    client: Client, table: str, target: Sequence[float], *, limit: int = 10
) -> SearchResult:
    """Ask the query of ClickHouse's tutorial of a base table: by L2, reading every row."""
    query = statement("tutorial_search", table=table)
    with typed_errors(f"search {table}"):
        began = time.perf_counter()
        parameters = {"target": as_parameter(target), "limit": limit}
        rows = client.query(query, parameters=parameters).result_rows
        seconds = time.perf_counter() - began
    return SearchResult([Hit(*row) for row in rows], seconds, query, True, parameters)


def as_parameter(vector: Sequence[float]) -> list[float]:
    """Return a vector as numbers whose text is no longer than float32 needs: half as many bytes."""
    return [float(text) for text in np.asarray(vector, np.float32).astype(str)]


def _literal(value: Any) -> str:
    """Return a parameter as ClickHouse's SQL writes it."""
    if isinstance(value, str):
        return quote_string(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)


def _checked(column: str) -> str:
    if column not in VECTORS:
        raise BadRequest(f"{column!r} is no vector column; take one of {', '.join(VECTORS)}")
    return column
