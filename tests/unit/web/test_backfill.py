from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from laion.clickhouse.ledger import Ledger
from laion.shards import MAX_SHARD
from laion.web.security import OWN_REQUEST_HEADER
from tests.patience import patience
from tests.unit.clickhouse.shard_steps import ORIGIN, TABLE
from tests.unit.web.conftest import Airflow
from tests.unit.web.test_board import SECOND, publish, record

OWN = {OWN_REQUEST_HEADER: "1"}


@pytest.fixture
def loaded(ledger: Ledger) -> Ledger:
    """Shard 1 is in, shard 2 failed; both were asked for by a run from a mirror."""
    ledger.record_run(
        ORIGIN,
        table=TABLE,
        dataset="clip_retrieval",
        source="https://mirror.example/laion",
        shards="1-2",
        params={"build_index": False, "tolerate_failed_shards": 3, "shards": "1-2"},
    )
    publish(ledger, 1)
    record(ledger, 2, "plan planned", "download started", "download failed", error_class="BadNpy")
    return ledger


def dry_run(pages: TestClient, shards: str, headers: dict[str, str] = OWN) -> Response:
    body = {"table": TABLE, "shards": shards}
    return pages.post("/board/backfill", json=body, headers=headers)


def repairs(answer: Response) -> dict[int, tuple[str, str]]:
    found: list[dict[str, Any]] = answer.json()["repairs"]
    return {repair["shard"]: (repair["reason"], repair["action"]) for repair in found}


def test_it_says_why_each_shard_would_be_loaded(pages: TestClient, loaded: Ledger) -> None:
    answer = dry_run(pages, "1-3")

    assert repairs(answer) == {
        1: ("explicit", "load"),
        2: ("failed", "load"),
        3: ("explicit", "load"),
    }
    assert "BadNpy" in answer.json()["repairs"][1]["why"]
    assert "again" in answer.json()["repairs"][0]["why"]


def test_the_run_repeats_the_last_one_for_these_shards(pages: TestClient, loaded: Ledger) -> None:
    conf = dry_run(pages, "2").json()["conf"]

    assert conf["shards"] == "2"
    assert (conf["table"], conf["dataset"]) == (TABLE, "clip_retrieval")
    assert conf["source"] == "https://mirror.example/laion"
    assert conf["tolerate_failed_shards"] == 0


def test_a_shard_that_a_run_is_at_work_on_is_left_to_it(
    pages: TestClient, loaded: Ledger, airflow: Airflow
) -> None:
    record(loaded, 2, "download started", attempt=SECOND, run_id="run_2")
    airflow.active_runs = {"run_2"}

    answer = dry_run(pages, "2")

    assert repairs(answer)[2][1] == "wait"
    assert answer.json()["conf"] is None


def test_nothing_is_written(pages: TestClient, loaded: Ledger) -> None:
    count = "SELECT (SELECT count() FROM shard_ledger) + (SELECT count() FROM ingest_runs)"
    before = loaded.client.command(count)

    dry_run(pages, "1-2")

    assert loaded.client.command(count) == before


@pytest.mark.parametrize("shards", ["", "all", "3-1", "1;2", "99999999"])
def test_what_names_no_shards_is_refused(pages: TestClient, loaded: Ledger, shards: str) -> None:
    answer = dry_run(pages, shards)

    assert answer.status_code == 400
    assert "shards" in answer.json()["error"]


def test_a_range_that_is_named_over_and_over_is_planned_once(
    pages: TestClient, loaded: Ledger
) -> None:
    with patience():
        answer = dry_run(pages, ",".join(["0-65535"] * 12_000))

    assert len(answer.json()["repairs"]) == MAX_SHARD + 1


def test_a_viewer_may_look_but_not_backfill(
    pages: TestClient, loaded: Ledger, airflow: Airflow
) -> None:
    airflow.user = "viewer"

    assert dry_run(pages, "2").status_code == 403
    assert '"may_trigger":false' in pages.get("/shards").text
    assert pages.get("/board", params={"table": TABLE}).status_code == 200


def test_a_page_of_another_origin_cannot_ask(pages: TestClient, loaded: Ledger) -> None:
    assert dry_run(pages, "2", headers={}).status_code == 403
