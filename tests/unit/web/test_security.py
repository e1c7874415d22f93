"""Nobody sees anything without Airflow's leave, and nothing from the data becomes code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clickhouse_connect.driver.client import Client
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from laion.clickhouse.ledger import Ledger
from laion.errors import ClickHouseUnreachable
from laion.web.app import Backend, create_app
from tests.unit.clickhouse.shard_steps import ORIGIN
from tests.unit.web.conftest import Airflow

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def all_requests(pages: TestClient) -> list[tuple[str, str]]:
    """Return (method, path) of every route of the application."""
    values = {"name": "page.css", "shard": "1"}
    return [
        (method, route.path.format(**values))
        for route in pages.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("stranger", 403)])
def test_no_route_answers_who_may_not_read(
    pages: TestClient, airflow: Airflow, user: str | None, status: int
) -> None:
    airflow.user = user
    requests = all_requests(pages)

    answers = {request: pages.request(*request).status_code for request in requests}

    assert len(answers) >= 6
    assert set(answers.values()) == {status}, answers


def test_there_is_nothing_but_these_routes(pages: TestClient) -> None:
    # A mounted application would not ask for leave, and a description of the API tells too much.
    assert all(isinstance(route, APIRoute) for route in pages.app.routes)


def test_no_answer_lets_a_browser_run_anything_but_our_files(
    pages: TestClient, ledger: Ledger
) -> None:
    for method, path in all_requests(pages):
        headers = pages.request(method, path, params={"table": "little", "since": 0}).headers

        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_pages_have_no_script_or_style_of_their_own(pages: TestClient, ledger: Ledger) -> None:
    html = pages.get("/shards").text

    inline = [part for part in html.split("<script")[1:] if "src=" not in part.split(">")[0]]
    assert [part.split(">")[0].strip() for part in inline] == ['type="application/json" id="data"']
    assert "<style" not in html
    assert "style=" not in html
    assert "onclick=" not in html


def test_data_cannot_end_the_block_that_it_is_in(pages: TestClient, ledger: Ledger) -> None:
    ledger.record_run(ORIGIN, table=HOSTILE, dataset=HOSTILE, source="", shards="", params={})

    html = pages.get("/shards").text

    assert "alert(1)" in html
    assert HOSTILE not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/..%2fapp.py", "/static/page.html", "/static/nothing.js"]
)
def test_only_assets_are_served(pages: TestClient, path: str) -> None:
    assert pages.get(path).status_code == 404


def test_an_asset_is_not_sent_again_unless_it_changed(pages: TestClient) -> None:
    first = pages.get("/static/page.css")

    again = pages.get("/static/page.css", headers={"If-None-Match": first.headers["ETag"]})

    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("table", ["a`b", "a b", "1a", "", "x" * 200])
def test_what_is_no_table_name_is_refused(pages: TestClient, table: str) -> None:
    assert pages.get("/board", params={"table": table}).status_code == 422


@pytest.mark.parametrize("path", ["/board", "/shards"])
@pytest.mark.parametrize(
    "error", [ClickHouseUnreachable("host secret-host, password hunter2"), ValueError("hunter2")]
)
def test_an_error_names_its_place_in_the_log_and_tells_nothing_else(
    airflow: Airflow, caplog: pytest.LogCaptureFixture, path: str, error: Exception
) -> None:
    @contextmanager
    def broken() -> Iterator[Client]:
        raise error
        yield

    backend = Backend(
        clickhouse=broken,
        may_read=airflow.may_read,
        may_trigger=airflow.may_trigger,
        active_runs=frozenset,
        source_urls=lambda dag_id, run_id, shard: {},
    )
    with (
        caplog.at_level(logging.ERROR, logger="laion.web.security"),
        TestClient(create_app(backend), raise_server_exceptions=False) as pages,
    ):
        answer = pages.get(path, params={"table": "little"})

    assert answer.status_code == 503
    assert "hunter2" not in answer.text
    assert "secret-host" not in answer.text
    (number,) = [r.args[0] for r in caplog.records if r.name == "laion.web.security"]
    assert str(number) in answer.text
