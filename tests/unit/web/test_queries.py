from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client
from fastapi.testclient import TestClient

QUERY_ID = "laion-load-little_staging_1_aaaa0001-1"


def test_the_query_log_s_entry_is_shown_as_text(pages: TestClient, client: Client) -> None:
    client.query("SELECT '<script>alert(1)</script>'", settings={"query_id": QUERY_ID})
    client.command("SYSTEM FLUSH LOGS")

    page = pages.get("/query", params={"id": QUERY_ID})

    assert page.status_code == 200
    assert "QueryFinish" in page.text
    assert "alert(1)" in page.text
    assert "<script>alert" not in page.text


def test_an_id_that_is_not_in_the_log_is_told(pages: TestClient, client: Client) -> None:
    client.command("SYSTEM FLUSH LOGS")

    page = pages.get("/query", params={"id": "laion-load-never-1"})

    assert page.status_code == 200
    assert "no such entry" in page.text


@pytest.mark.parametrize("query_id", ["", "84090f54-9db3-4e0e", "laion-load-' OR 1", "x" * 500])
def test_queries_of_others_are_not_shown(pages: TestClient, query_id: str) -> None:
    assert pages.get("/query", params={"id": query_id}).status_code == 422
