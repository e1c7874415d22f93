"""What the page Search asks: by words, by a picture or by a row; by the index, exactly, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import IDENTIFIER_PATTERN, search_table
from laion.clickhouse.publish import table_exists
from laion.clickhouse.search import Filters, Hit, SearchResult, Target, search
from laion.clickhouse.statements import statement
from laion.errors import BadRequest, ClickHouseBusy, ClickHouseError, SearchTableMissing
from laion.web.board import TableChoice, has_ledger
from laion.web.encoding import Encoding

MAX_LIMIT = 100
MAX_WORDS_CHARS = 1000


class SearchRequest(BaseModel):
    """The query string of a search. `like` is the id of a row to find more of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(pattern=f"^{IDENTIFIER_PATTERN}$")
    dataset: str = Field("", max_length=100)
    words: str = Field("", max_length=MAX_WORDS_CHARS)
    like: int | None = Field(None, ge=0, lt=2**63)
    column: Literal["image_embedding", "text_embedding"] = "image_embedding"
    method: Literal["index", "exact", "both"] = "index"
    limit: int = Field(24, ge=1, le=MAX_LIMIT)
    nsfw: list[str] = Field([], max_length=10)
    licence: list[str] = Field([], max_length=20)
    min_similarity: float | None = Field(None, ge=-1, le=1)
    min_width: int = Field(0, ge=0, lt=2**32)
    min_height: int = Field(0, ge=0, lt=2**32)

    def filters(self) -> Filters:
        return Filters(
            nsfw=self.nsfw,
            licenses=self.licence,
            min_similarity=self.min_similarity,
            min_width=self.min_width,
            min_height=self.min_height,
        )


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


def read_searchable(client: Client) -> list[TableChoice]:
    """Return the tables that can be searched, the one loaded last first."""
    if not has_ledger(client):
        return []
    with typed_errors("look for search tables"):
        rows = client.query(statement("searchable_tables")).result_rows
    return [TableChoice(*row) for row in rows]


def find(
    client: Client,
    request: SearchRequest,
    encoding: Encoding,
    mirror: PictureMirror,
    picture: bytes | None = None,
) -> dict[str, Any]:
    """Return the hits as the page shows them, with the statements and their seconds.

    With both methods the hits are the index's, and `overlap` counts those that brute force has
    as well. Raises SearchTableMissing, BadRequest, BadImage, RowMissing, ClickHouseError.
    """
    methods = ("index", "exact") if request.method == "both" else (request.method,)
    try:
        target, encoded_by = _target(client, request, encoding, picture)
        results = {method: _search(client, request, target, method) for method in methods}
    except ClickHouseError as error:
        if table_exists(client, search_table(request.table)):
            raise
        raise SearchTableMissing(
            f"{request.table} has no search table yet: run laion_ingest with build_index."
        ) from error
    shown = results[methods[0]]
    answer: dict[str, Any] = {
        "encoded_by": encoded_by,
        "hits": [_shown(hit, mirror) for hit in shown.hits],
        "runs": {
            method: {
                "seconds": result.seconds,
                "sql": result.runnable_sql(),
                "is_exact": result.is_exact,
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
    # JSON has no NaN, which stands for an unknown similarity.
    similarity = None if math.isnan(hit.similarity) else hit.similarity
    return {**asdict(hit), "similarity": similarity, "src": mirror.address(hit.url)}


def _target(
    client: Client, request: SearchRequest, encoding: Encoding, picture: bytes | None
) -> tuple[Target, str]:
    if picture is not None:
        return encoding.picture(request.dataset, picture), "the model, in Airflow's API server"
    if request.like is not None:
        return Target.row(client, request.table, request.like, request.column), "the row's vector"
    if not request.words.strip():
        raise BadRequest("Say what to search for: words, a picture or a row.")
    return encoding.words(client, request.dataset, request.words)


def _search(client: Client, request: SearchRequest, target: Target, method: str) -> SearchResult:
    def run() -> SearchResult:
        return search(
            client,
            request.table,
            target,
            column=request.column,
            limit=request.limit,
            filters=request.filters(),
            exact=method == "exact",
        )

    try:
        return run()
    except ClickHouseError as error:
        if "text" not in target.parameters or isinstance(error, ClickHouseBusy):
            raise
        # A killed process of encode_text fails one query before another takes its place.
        return run()
