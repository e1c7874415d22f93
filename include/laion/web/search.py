"""What the page Search asks: by words, by a picture or by a row; by the index, exactly, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, create_model

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.identifiers import IDENTIFIER_PATTERN
from laion.clickhouse.search_table.filters import Filters
from laion.clickhouse.search_table.in_use import plan_of
from laion.clickhouse.search_table.search import Hit, SearchResult, Target, search
from laion.columns import FILTERED, NUMBER, SHOWN, TEXT, Column
from laion.errors import BadRequest, ClickHouseBusy, ClickHouseError, TableMismatch
from laion.vectors import IMAGE
from laion.web.board import has_ledger
from laion.web.encoding import Encoding

MAX_LIMIT = 100
MAX_WORDS_CHARS = 1000
MAX_VALUES = 20
"""Of a filter that compares with several."""


class Asked(BaseModel):
    """The query string of a search but for its filters.

    `like` is a row to find more of, `distinct` leaves out copies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(pattern=f"^{IDENTIFIER_PATTERN}$")
    dataset: str = Field("", max_length=100)
    words: str = Field("", max_length=MAX_WORDS_CHARS)
    like: int | None = Field(None, ge=0, lt=2**63)
    column: str = Field(IMAGE, pattern=f"^{IDENTIFIER_PATTERN}$")
    method: Literal["index", "exact", "both"] = "index"
    limit: int = Field(24, ge=1, le=MAX_LIMIT)
    distinct: bool = False

    def filters(self) -> Filters:
        own = Asked.model_fields
        return {name: value for name, value in self.model_dump().items() if name not in own}


def _field(column: Column) -> tuple[Any, Any]:
    """Return the type and the default of a filter in the query string."""
    assert column.filter is not None
    if column.filter.contains:
        return str, Field("", max_length=MAX_WORDS_CHARS)
    if column.type is TEXT:
        return list[str], Field([], max_length=MAX_VALUES)
    kind = float if column.type is NUMBER else int
    most = 2**32 - 1 if column.filter.most is None else column.filter.most
    return kind | None, Field(None, ge=column.filter.least, le=most)


_FILTERS: dict[str, Any] = {
    column.filter.parameter: _field(column) for column in FILTERED if column.filter
}
SearchRequest = create_model("SearchRequest", __base__=Asked, **_FILTERS)
SearchQuery = Annotated[SearchRequest, Query()]


@dataclass(frozen=True)
class PictureMirror:
    """Where pictures are to be had instead, from the setting `LAION_PICTURES_MIRROR`."""

    prefixes: Sequence[tuple[str, str]]

    @classmethod
    def parse(cls, setting: str) -> PictureMirror:
        pairs = [pair.strip().partition("=") for pair in setting.split(",") if pair.strip()]
        return cls([(original, mirror) for original, _, mirror in pairs])

    def address(self, url: str) -> str:
        """Return where a browser finds a picture; empty for what is no web address."""
        for original, mirror in self.prefixes:
            if url.startswith(original):
                return mirror + url.removeprefix(original)
        return url if url.lower().startswith(("http://", "https://")) else ""


@dataclass(frozen=True)
class Searchable:
    """A table that can be searched, by each of its vectors."""

    table: str
    dataset: str
    vectors: list[str]


def read_searchable(client: Client) -> list[Searchable]:
    """Return the tables that can be searched, the one loaded last first."""
    if not has_ledger(client):
        return []
    with typed_errors("look for search tables"):
        rows = read_rows(client, "searchable_tables")
    found = []
    for row in rows:
        # Somebody else's table may have such a name.
        with suppress(TableMismatch):
            vectors = list(plan_of(row["name"], row["comment"]).vectors)
            found.append(Searchable(row["table"], row["dataset"], vectors))
    return found


def describe_form() -> dict[str, Any]:
    """Return the filters that the form offers, and the columns that a result shows."""
    return {
        "filters": [
            {"column": column.name, "type": column.type.clickhouse, **asdict(column.filter)}
            for column in FILTERED
            if column.filter
        ],
        "columns": [{"name": column.name, "type": column.type.clickhouse} for column in SHOWN],
    }


def find(
    client: Client,
    request: Asked,
    encoding: Encoding,
    mirror: PictureMirror,
    picture: bytes | None = None,
) -> dict[str, Any]:
    """Return the hits as the page shows them, with the statements and their seconds.

    With both methods the hits are the index's, and `overlap` counts those that brute force has
    as well. Raises SearchTableMissing, BadRequest, BadImage, RowMissing, ClickHouseError.
    """
    methods = ("index", "exact") if request.method == "both" else (request.method,)
    target, encoded_by = _target(client, request, encoding, picture)
    results = {method: _search(client, request, target, method) for method in methods}
    shown = results[methods[0]]
    answer: dict[str, Any] = {
        "encoded_by": encoded_by,
        "hits": [_shown(hit, mirror) for hit in shown.hits],
        "runs": {
            method: {
                "seconds": result.seconds,
                "sql": result.runnable_sql(),
                "is_exact": result.is_exact,
                "is_fallback": result.is_fallback,
            }
            for method, result in results.items()
        },
    }
    if request.method == "both":
        exact = {hit.id for hit in results["exact"].hits}
        for hit in answer["hits"]:
            hit["in_exact"] = hit["id"] in exact
        answer["overlap"] = sum(hit["in_exact"] for hit in answer["hits"])
    return answer


def _shown(hit: Hit, mirror: PictureMirror) -> dict[str, Any]:
    # JSON has no NaN, which stands for an unknown number.
    values = {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in hit.values.items()
    }
    return {
        "id": hit.id,
        "distance": hit.distance,
        "src": mirror.address(hit.values["url"]),
        **values,
    }


def _target(
    client: Client, request: Asked, encoding: Encoding, picture: bytes | None
) -> tuple[Target, str]:
    if picture is not None:
        return encoding.picture(
            request.dataset, request.column, picture
        ), "the model, in Airflow's API server"
    if request.like is not None:
        return Target.row(client, request.table, request.like, request.column), "the row's vector"
    if not request.words.strip():
        raise BadRequest("Say what to search for: words, a picture or a row.")
    return encoding.words(client, request.dataset, request.column, request.words)


def _search(client: Client, request: Asked, target: Target, method: str) -> SearchResult:
    def run() -> SearchResult:
        return search(
            client,
            request.table,
            target,
            column=request.column,
            limit=request.limit,
            filters=request.filters(),
            distinct=request.distinct,
            exact=method == "exact",
        )

    try:
        return run()
    except ClickHouseError as error:
        if "text" not in target.parameters or isinstance(error, ClickHouseBusy):
            raise
        # A killed process of encode_text fails one query before another takes its place.
        return run()
