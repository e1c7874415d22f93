"""Search by vector, by words or by a row: with the index of a search table, or exactly.

Index searches use the settings that the recall gate found and stored for the table in use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from clickhouse_connect.driver.query import QueryResult

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, quote_string
from laion.clickhouse.search_table.build import read_in_use
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import Question, SearchProfile
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.search_table.profiles import read_profile
from laion.clickhouse.statements import statement
from laion.columns import COUNT, FILTERED, SHOWN, TEXT
from laion.errors import BadRequest, RowMissing, SearchTableMissing
from laion.vectors import IMAGE

SHOWN_COLUMNS = ", ".join(column.name for column in SHOWN)


Filters = Mapping[str, Any]
"""What rows must be like, beside near: values by the parameters of the filters in
`laion.columns`. None, no values and a least size of 0 do not narrow. Rows whose value is unknown
(NaN) pass."""


@dataclass(frozen=True)
class Hit:
    """One result: `values` are the columns that are shown, `distance` is in the search's metric."""

    id: int
    distance: float
    values: Mapping[str, Any]


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
        """The vector of a row, which itself is no result. Raises RowMissing, and as `search`."""
        plan = read_search_plan(client, table, column)
        kind = kind_of(plan.options)
        name = kind.table_of(kind.place(table, plan, in_use=True), column)
        query = f"SELECT {column} FROM {quote_identifier(name)} WHERE id = {{row:Int64}}"
        with typed_errors(f"read row {row_id} of {name}"):
            found = client.query(query, parameters={"row": row_id}).result_rows
        if not found:
            raise RowMissing(f"{name} has no row with id {row_id}")
        return cls(f"({query})", {"row": row_id}, not_row=row_id)


def search(
    client: Client,
    table: str,
    target: Target,
    *,
    column: str = IMAGE,
    limit: int = 10,
    filters: Filters | None = None,
    exact: bool = False,
) -> SearchResult:
    """Return the rows of `table`'s search table nearest to `target`, by the metric of its index.

    When a filter leaves too few of the index's candidates, more are fetched, and in the end every
    row is read. Raises SearchTableMissing, TableMismatch, ClickHouseError; BadRequest for an
    unknown column or filter.
    """
    plan = read_search_plan(client, table, column)
    kind = kind_of(plan.options)
    place = kind.place(table, plan, in_use=True)
    profile: SearchProfile | None = None if exact else read_profile(client, table, column, plan)
    conditions, values = _conditions(filters or {})
    parameters = {**target.parameters, **values}
    if target.not_row is not None:
        conditions.append("id != {not_row:Int64}")
        parameters["not_row"] = target.not_row
    question = Question(f"id, {SHOWN_COLUMNS}", column, target.expression, conditions)
    began = time.perf_counter()
    parameters["limit"] = limit
    with typed_errors(f"search {place}"):
        while True:
            query = kind.search(table, place, plan, question, profile)
            settings = kind.exact_settings if profile is None else profile.settings()
            found = client.query(query, parameters=parameters, settings=dict(settings))
            if profile is None or not conditions or len(found.result_rows) >= limit:
                break
            wider = profile.widened(limit)
            if wider is profile:
                break
            profile = wider
    seconds = time.perf_counter() - began
    shown = ", ".join(f"{name} = {value}" for name, value in settings.items())
    sql = f"{query}\nSETTINGS {shown}"
    return SearchResult(_hits(found), seconds, sql, profile is None, parameters)


def read_search_plan(client: Client, table: str, column: str) -> BuildPlan:
    """Return what the search table in use was built by.

    Raises SearchTableMissing, TableMismatch when it is somebody else's, BadRequest when it has no
    such vector.
    """
    plan = read_in_use(client, table)
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
    query = statement("tutorial_search", table=table, literals={"shown": SHOWN_COLUMNS})
    with typed_errors(f"search {table}"):
        began = time.perf_counter()
        parameters = {"target": as_parameter(target), "limit": limit}
        found = client.query(query, parameters=parameters)
        seconds = time.perf_counter() - began
    return SearchResult(_hits(found), seconds, query, True, parameters)


def as_parameter(vector: Sequence[float]) -> list[float]:
    """Return a vector as numbers whose text is no longer than float32 needs: half as many bytes."""
    return [float(text) for text in np.asarray(vector, np.float32).astype(str)]


def _conditions(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    """Return the conditions of the filters that narrow, and their parameters."""
    known = {column.filter.parameter: column for column in FILTERED if column.filter}
    if unknown := sorted(set(filters) - set(known)):
        raise BadRequest(f"no filter {', '.join(unknown)}; there are {', '.join(known)}")
    given = {
        name: value
        for name, value in filters.items()
        if value is not None
        and not (known[name].type is TEXT and not value)
        and not (known[name].type is COUNT and value == 0)
    }
    return [known[name].condition for name in given], given


def _hits(found: QueryResult) -> list[Hit]:
    return [Hit(row.pop("id"), row.pop("distance"), row) for row in found.named_results()]


def _literal(value: Any) -> str:
    """Return a parameter as ClickHouse's SQL writes it."""
    if isinstance(value, str):
        return quote_string(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)
