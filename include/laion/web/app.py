"""The application behind both pages."""

# Annotations are evaluated here, not later: those of the routes name what `create_app` was given.
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, status
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import IDENTIFIER_PATTERN
from laion.errors import LaionError
from laion.shards import MAX_SHARD
from laion.web.assets import read_assets
from laion.web.board import (
    STATES,
    TableChoice,
    read_board,
    read_changes,
    read_history,
    read_tables,
)
from laion.web.encoding import MAX_PICTURE_BYTES, Encoding
from laion.web.queries import OWN_QUERY_PATTERN, read_logged_query
from laion.web.repair import plan_repair
from laion.web.search import (
    PictureMirror,
    SearchQuery,
    describe_form,
    find,
    read_searchable,
)
from laion.web.security import describe_error, protect, require_own_request
from laion.web.status import read_functions, read_search_table

DAG_ID = "laion_ingest"
MAX_SHARDS_CHARS = 100_000
"""Of an expression: some ten thousand shards, one by one."""

Table = Annotated[str, Query(pattern=f"^{IDENTIFIER_PATTERN}$")]
Dataset = Annotated[str, Query(max_length=100)]
Cursor = Annotated[int, Query(ge=0, le=2**62)]


class BackfillQuery(BaseModel):
    """The shards to load again, such as "0-9,12"."""

    table: str = Field(pattern=f"^{IDENTIFIER_PATTERN}$")
    shards: str = Field(max_length=MAX_SHARDS_CHARS)


@dataclass(frozen=True)
class Backend:
    """What the pages need from where they are mounted.

    `clickhouse` opens a client that only reads. `may_read` is a FastAPI dependency that raises
    HTTPException 401 or 403, `may_trigger` one that returns whether the caller may start runs.
    `active_runs` are the ids of the runs that are queued or running. `source_urls` returns the
    files of a shard as a run planned them, by role; empty when the run is gone. `models_dir` and
    `pictures_mirror` are the settings of these names. `alerts_warning` says why alerts reach
    nobody; None when they do.
    """

    clickhouse: Callable[[], AbstractContextManager[Client]]
    may_read: Callable[..., Any]
    may_trigger: Callable[..., bool]
    active_runs: Callable[[], Collection[str]]
    source_urls: Callable[[str, str, int], Mapping[str, str]]
    alerts_warning: Callable[[], str | None] = lambda: None
    models_dir: str = ""
    pictures_mirror: str = ""


def create_app(backend: Backend) -> FastAPI:
    """Return the application; every route of it asks `backend.may_read` first."""
    app = FastAPI(
        title="LAION → ClickHouse",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(backend.may_read)],
    )
    protect(app)
    pages = Environment(
        loader=PackageLoader("laion.web"), autoescape=True, undefined=StrictUndefined
    )
    pages.filters["json_block"] = _json_block

    @app.get("/shards")
    def show_shards(
        may_trigger: Annotated[bool, Depends(backend.may_trigger)], table: str = ""
    ) -> HTMLResponse:
        """The page *Shards*: an empty frame with the whole board as data in it."""
        data: dict[str, Any] = {"states": STATES, "may_trigger": may_trigger, "dag_id": DAG_ID}
        code = 200
        try:
            with backend.clickhouse() as client:
                tables = read_tables(client)
                choice = next((c for c in tables if c.table == table), tables[0])
                board = read_board(client, choice, backend.active_runs())
            data |= {"tables": [asdict(choice) for choice in tables], "board": asdict(board)}
        except LaionError as error:
            code, data["error"] = describe_error(error)
        warning = backend.alerts_warning()
        page = pages.get_template("shards.html").render(data=data, warning=warning)
        return HTMLResponse(page, code)

    @app.get("/board")
    def send_board(table: Table, dataset: Dataset = "") -> Response:
        """The whole board again, which heals what changes have missed."""
        with backend.clickhouse() as client:
            choice = TableChoice(table, dataset)
            return _json(asdict(read_board(client, choice, backend.active_runs())))

    @app.get("/board/changes")
    def send_changes(table: Table, since: Cursor, dataset: Dataset = "") -> Response:
        """What has changed since the cursor of the last answer."""
        with backend.clickhouse() as client:
            choice = TableChoice(table, dataset)
            return _json(asdict(read_changes(client, choice, backend.active_runs(), since)))

    @app.get("/board/shards/{shard}")
    def send_history(table: Table, shard: int) -> Response:
        """The attempts at a shard, newest first, and its source files."""
        if not 0 <= shard <= MAX_SHARD:
            raise HTTPException(status.HTTP_404_NOT_FOUND)
        with backend.clickhouse() as client:
            attempts = read_history(client, table, shard)
        urls = (
            backend.source_urls(attempts[0].dag_id, attempts[0].run_id, shard) if attempts else {}
        )
        return _json({"attempts": [asdict(attempt) for attempt in attempts], "sources": dict(urls)})

    @app.post("/board/backfill", dependencies=[Depends(require_own_request)])
    def dry_run_backfill(
        request: BackfillQuery, may_trigger: Annotated[bool, Depends(backend.may_trigger)]
    ) -> Response:
        """What loading some shards again would do. The browser then asks Airflow for the run."""
        if not may_trigger:
            raise HTTPException(status.HTTP_403_FORBIDDEN)
        with backend.clickhouse() as client:
            active_runs = backend.active_runs()
            return _json(asdict(plan_repair(client, request.table, request.shards, active_runs)))

    @app.get("/board/state")
    def send_state(table: Table) -> Response:
        """The search table, its recall and the SQL functions."""
        with backend.clickhouse() as client:
            search_table = read_search_table(client, table)
            functions = read_functions(client)
        return _json(
            {
                "search_table": asdict(search_table) if search_table else None,
                "functions": [asdict(function) for function in functions],
            }
        )

    @app.get("/query")
    def show_query(
        query_id: Annotated[str, Query(alias="id", pattern=OWN_QUERY_PATTERN)],
    ) -> HTMLResponse:
        """What ClickHouse's query log says of one of our queries."""
        data: dict[str, Any] = {"id": query_id, "entries": [], "error": ""}
        code = 200
        try:
            with backend.clickhouse() as client:
                data["entries"] = read_logged_query(client, query_id)
        except LaionError as error:
            code, data["error"] = describe_error(error)
        return HTMLResponse(pages.get_template("query.html").render(data=data), code)

    encoding = Encoding(backend.models_dir)
    mirror = PictureMirror.parse(backend.pictures_mirror)

    @app.get("/search")
    def show_search() -> HTMLResponse:
        """The page *Search*."""
        data = {"tables": [], "max_picture_bytes": MAX_PICTURE_BYTES, **describe_form()}
        code = 200
        try:
            with backend.clickhouse() as client:
                data["tables"] = [asdict(choice) for choice in read_searchable(client)]
        except LaionError as error:
            code, data["error"] = describe_error(error)
        return HTMLResponse(pages.get_template("search.html").render(data=data), code)

    @app.get("/search/results")
    def search_words_or_row(request: SearchQuery) -> Response:
        """Rows near to words, or to a row."""
        with backend.clickhouse() as client:
            return _json(find(client, request, encoding, mirror))

    @app.post("/search/results", dependencies=[Depends(require_own_request)])
    def search_picture(
        request: SearchQuery, picture: Annotated[bytes, Depends(read_picture)]
    ) -> Response:
        """Rows near to the picture that is the body."""
        with backend.clickhouse() as client:
            return _json(find(client, request, encoding, mirror, picture))

    @app.get("/static/{name}")
    def send_asset(name: str, request: Request) -> Response:
        """A script or a style."""
        asset = read_assets().get(name)
        if asset is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND)
        headers = {"ETag": asset.etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("If-None-Match") == asset.etag:
            return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    return app


async def read_picture(request: Request) -> bytes:
    """Return the body of a request, and not a byte more than a picture may have."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_PICTURE_BYTES:
            raise HTTPException(
                status.HTTP_413_CONTENT_TOO_LARGE,
                f"A picture may have {MAX_PICTURE_BYTES >> 20} MiB.",
            )
    return bytes(body)


def _json(value: Any) -> Response:
    """Answer compact JSON; faster than through a model for thousands of cells."""
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")


def _json_block(value: Any) -> Markup:
    r"""Return JSON for a `<script type="application/json">`, in which no tag can end or begin."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))
