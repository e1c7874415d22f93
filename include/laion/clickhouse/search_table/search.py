"""Search by vector, by words or by a row: with the index of a search table, or exactly.

Index searches use the settings that the recall gate found and stored for the table in use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from clickhouse_connect.driver.query import QueryResult

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, quote_string
from laion.clickhouse.schema import column_types
from laion.clickhouse.search_table.filters import (
    KNOWN,
    Filters,
    conditions,
    narrowing,
    view_arguments,
    view_parameter,
)
from laion.clickhouse.search_table.in_use import (
    again_if_replaced,
    read_in_use,
    read_state,
    view_names,
)
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SearchProfile
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.search_table.profiles import read_profile
from laion.clickhouse.statements import statement
from laion.columns import SHOWN
from laion.errors import BadRequest, RowMissing, SearchTableMissing
from laion.vectors import IMAGE

SHOWN_NAMES = tuple(column.name for column in SHOWN)
OMITS_PARAMETERS = (26, 3)
"""The first version in which parameters of a view that may be NULL need not be given."""


@dataclass(frozen=True)
class Hit:
    """One result: `values` are the columns that are shown, `distance` is in the search's metric."""

    id: int
    distance: float
    values: Mapping[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """Hits, nearest first; how they were found, and the seconds that took for the client.

    `sql` is the statement that was run, and the `parameters` that stand in braces there. The search
    is a fallback when an index had found too few rows and more were looked at.
    """

    hits: list[Hit]
    seconds: float
    sql: str
    is_exact: bool
    is_fallback: bool = False
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
        """The vector of a row, which itself is no result. Raises RowMissing, and as `search`."""
        read_search_plan(client, table, column)
        query = f"SELECT {column} FROM {quote_identifier(table)} WHERE id = {{row:Int64}}"
        norm = f"L2Norm({column})"
        usable = f"SELECT count() FROM ({query}) WHERE {norm} > 0 AND isFinite({norm})"
        with typed_errors(f"read row {row_id} of {table}"):
            found = client.query(usable, parameters={"row": row_id}).result_rows[0][0]
        if not found:
            raise RowMissing(f"{table} has no row with id {row_id}, or one without a {column}")
        return cls(f"({query})", {"row": row_id}, not_row=row_id)


def search(
    client: Client,
    table: str,
    target: Target,
    *,
    column: str = IMAGE,
    limit: int = 10,
    filters: Filters | None = None,
    distinct: bool = False,
    exact: bool = False,
) -> SearchResult:
    """Return the rows nearest to `target`, by the metric of the search table of `table`.

    The view of the column is asked. When it gives too few, as where filters leave too few of an
    index's candidates, more are fetched, and in the end every row is read. `distinct` leaves out
    copies: of rows with one URL, or with nearly the same vector, the nearest is returned.
    Raises SearchTableMissing, TableMismatch, ClickHouseError; BadRequest for an unknown column or
    filter.
    """
    narrow = narrowing(filters or {})
    asked = _Search(client, table, target, column, limit, narrow, distinct=distinct)
    return again_if_replaced(lambda: asked.run(exact=exact))


@dataclass(frozen=True)
class _Search:
    """A search of a table; the row that it starts from is asked for as well, and left out."""

    client: Client
    table: str
    target: Target
    column: str
    limit: int
    filters: Filters
    distinct: bool

    def run(self, *, exact: bool) -> SearchResult:
        in_use = read_state(self.client, self.table)
        plan = _checked(in_use.plan, self.table, self.column)
        if exact:
            return self._ask(plan, None)
        arguments = view_arguments(self.filters)
        view = view_names(self.table, plan.vectors)[self.column]
        profile: SearchProfile | None = None
        if arguments is not None and view in in_use.views:
            result = self._ask_view(plan, view, arguments)
        else:
            profile = read_profile(self.client, self.table, self.column, plan)
            result = self._ask(plan, profile)
        seconds = result.seconds
        while len(result.hits) < self.limit and not result.is_exact:
            known = profile or read_profile(self.client, self.table, self.column, plan)
            profile = known.widened(self.limit)
            if profile is known:
                break
            result = replace(self._ask(plan, profile), is_fallback=True)
            seconds += result.seconds
        return replace(result, seconds=seconds)

    @cached_property
    def shown(self) -> list[str]:
        """The columns that results have: of those of this release, what the table has."""
        existing = column_types(self.client, self.table)
        return [name for name in SHOWN_NAMES if name in existing]

    def _ask_view(self, plan: BuildPlan, view: str, arguments: Mapping[str, Any]) -> SearchResult:
        given = [f"q = {self.target.expression}", "k = {limit:UInt32}"]
        given += ["distinct = true"] if self.distinct else []
        given += [f"{name} = {view_parameter(name)}" for name in arguments]
        if not self._omits_parameters():
            given += [f"{name} = NULL" for name in KNOWN if name not in arguments]
            given += [] if self.distinct else ["distinct = NULL"]
        sql = (
            f"SELECT id, distance, {', '.join(self.shown)}\n"
            f"FROM {quote_identifier(view)}({', '.join(given)})"
        )
        return self._result(sql, arguments, is_exact=kind_of(plan.options).is_live)

    def _omits_parameters(self) -> bool:
        version = str(self.client.server_version).split(".")[:2]
        return tuple(map(int, version)) >= OMITS_PARAMETERS

    def _ask(self, plan: BuildPlan, profile: SearchProfile | None) -> SearchResult:
        kind = kind_of(plan.options)
        place = kind.place(self.table, plan, in_use=True)
        question = Question(
            self.column,
            self.target.expression,
            self.shown,
            conditions(self.filters, lambda own, test: kind.condition(self.table, own, test)),
            distinct="true" if self.distinct else "",
        )
        sql = kind.search(self.table, place, plan, question, profile)
        return self._result(sql, self.filters, is_exact=profile is None)

    def _result(self, sql: str, given: Mapping[str, Any], *, is_exact: bool) -> SearchResult:
        own = self.target.not_row
        parameters = {
            **self.target.parameters,
            **given,
            "limit": self.limit + (own is not None),
        }
        began = time.perf_counter()
        with typed_errors(f"search {self.table}"):
            found = self.client.query(sql, parameters=parameters)
        hits = [hit for hit in _hits(found) if hit.id != own][: self.limit]
        seconds = time.perf_counter() - began
        return SearchResult(hits, seconds, sql, is_exact, parameters=parameters)


def read_search_plan(client: Client, table: str, column: str) -> BuildPlan:
    """Return what the search table in use was built by.

    Raises SearchTableMissing, TableMismatch when it is somebody else's, BadRequest when it has no
    such vector.
    """
    return _checked(read_in_use(client, table), table, column)


def _checked(plan: BuildPlan | None, table: str, column: str) -> BuildPlan:
    if plan is None:
        raise SearchTableMissing(
            f"{table} has no search table yet: run laion_ingest with build_index."
        )
    if column not in plan.vectors:
        raise BadRequest(f"{column!r} is no vector column; take one of {', '.join(plan.vectors)}")
    return plan


def search_tutorial(
    client: Client, table: str, target: Sequence[float], *, limit: int = 10
) -> SearchResult:
    """Ask the query of ClickHouse's tutorial of a base table: by L2, reading every row."""
    query = statement("tutorial_search", table=table, literals={"shown": ", ".join(SHOWN_NAMES)})
    with typed_errors(f"search {table}"):
        began = time.perf_counter()
        parameters = {"target": as_parameter(target), "limit": limit}
        found = client.query(query, parameters=parameters)
        seconds = time.perf_counter() - began
    return SearchResult(_hits(found), seconds, query, True, parameters=parameters)


def as_parameter(vector: Sequence[float]) -> list[float]:
    """Return a vector as numbers whose text is no longer than float32 needs: half as many bytes."""
    return [float(text) for text in np.asarray(vector, np.float32).astype(str)]


def _hits(found: QueryResult) -> list[Hit]:
    return [Hit(row.pop("id"), row.pop("distance"), row) for row in found.named_results()]


def _literal(value: Any) -> str:
    """Return a parameter as ClickHouse's SQL writes it."""
    if isinstance(value, str):
        return quote_string(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)
