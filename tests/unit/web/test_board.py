from __future__ import annotations

import json
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from fastapi.testclient import TestClient

from laion.backfill import QUIET_S
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.ledger.shard_facts import failed_shards
from laion.clickhouse.statements import statement
from laion.web.board import STATES
from tests.unit.clickhouse.shard_steps import ORIGIN, TABLE, event
from tests.unit.web.conftest import Airflow

FIRST, SECOND = "aaaa0001", "bbbb0002"
RUN = ORIGIN.run_id


def record(ledger: Ledger, shard: int, *steps: str, attempt: str = FIRST, **more: Any) -> None:
    """Append the events of an attempt one by one, written as `convert failed`."""
    for step in steps:
        stage, state = step.split()
        name = "" if stage == "plan" else attempt
        ledger.append([event(shard, stage, state, name, **more)])


def publish(ledger: Ledger, shard: int, rows: int = 3, attempt: str = FIRST) -> None:
    """Put rows of a shard into the base table and tell the ledger so."""
    ledger.client.command(
        f"INSERT INTO {TABLE} (id, shard) SELECT {shard} * 100 + number, {shard} "
        f"FROM numbers({rows})"
    )
    record(ledger, shard, "plan planned", "download started", attempt=attempt)
    record(ledger, shard, "publish done", attempt=attempt, rows_loaded=rows)


def board(pages: TestClient) -> dict[str, Any]:
    return pages.get("/board", params={"table": TABLE, "dataset": "little"}).json()


def changes(pages: TestClient, since: int) -> dict[str, Any]:
    query = {"table": TABLE, "dataset": "little", "since": since}
    return pages.get("/board/changes", params=query).json()


def states(pages: TestClient) -> dict[int, str]:
    return {cell[0]: STATES[cell[1]] for cell in board(pages)["changes"]["cells"]}


class TestState:
    @pytest.mark.parametrize(
        ("steps", "state"),
        [
            (["plan planned"], "queued"),
            (["download started"], "downloading"),
            (["download started", "download done"], "downloading"),
            (["convert started"], "converting"),
            (["load started"], "loading"),
            (["validate started"], "loading"),
            (["load failed"], "failed"),
        ],
    )
    def test_it_is_what_the_active_run_is_doing(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow, steps: list[str], state: str
    ) -> None:
        airflow.active_runs = {RUN}
        record(ledger, 1, *steps)

        assert states(pages) == {1: state}

    def test_a_published_shard_is_validated(self, pages: TestClient, ledger: Ledger) -> None:
        publish(ledger, 1)

        assert states(pages) == {1: "validated"}

    def test_a_published_shard_whose_last_attempt_failed_shows_both(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        publish(ledger, 1, rows=3)
        record(ledger, 1, "download started", "load failed", attempt=SECOND)

        (cell,) = board(pages)["changes"]["cells"]
        assert (STATES[cell[1]], cell[3]) == ("failed", 3)
        assert cell[2] > 0

    def test_a_shard_whose_partition_lost_rows_is_mismatched(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        publish(ledger, 1)
        ledger.client.command(f"DELETE FROM {TABLE} WHERE shard = 1 AND id % 2 = 0")

        assert states(pages) == {1: "mismatched"}

    def test_a_shard_whose_partition_was_dropped_is_missing(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        publish(ledger, 1)
        ledger.client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")

        assert states(pages) == {1: "missing"}

    def test_a_published_shard_whose_next_attempt_was_killed_has_failed(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        publish(ledger, 1, rows=3)
        record(ledger, 1, "download started", "load started", attempt=SECOND)

        assert states(pages) == {1: "failed"}

    def test_a_shard_that_another_active_run_plans_again_is_queued(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        publish(ledger, 1)
        record(ledger, 1, "plan planned", run_id="run_2")
        airflow.active_runs = {"run_2"}

        assert states(pages) == {1: "queued"}

    @pytest.mark.parametrize("steps", [["plan planned"], ["plan planned", "download started"]])
    def test_a_shard_whose_run_ended_without_a_word_is_missing(
        self, pages: TestClient, ledger: Ledger, steps: list[str]
    ) -> None:
        record(ledger, 1, *steps)

        assert states(pages) == {1: "missing"}


class TestCell:
    def test_it_tells_when_how_much_came_in(self, pages: TestClient, ledger: Ledger) -> None:
        before = int(ledger.client.command("SELECT toUnixTimestamp(now())"))
        publish(ledger, 1, rows=3)
        record(ledger, 1, "download done", bytes=500)

        found = board(pages)["changes"]
        ((_, _, published_at, rows, size, fetched, begun_at),) = found["cells"]

        assert before <= begun_at <= published_at <= found["cursor"] / 1e6 + 3
        assert (rows, fetched) == (3, 500)
        assert size > 0

    def test_a_download_tells_how_many_bytes_are_here(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        airflow.active_runs = {RUN}
        record(ledger, 2, "download started", bytes=0)
        record(ledger, 2, "download started", bytes=500)

        (cell,) = board(pages)["changes"]["cells"]

        assert (STATES[cell[1]], cell[5]) == ("downloading", 500)

    def test_a_planned_shard_is_two_numbers(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        airflow.active_runs = {RUN}
        record(ledger, 7, "plan planned")

        assert board(pages)["changes"]["cells"] == [[7, STATES.index("queued")]]

    def test_starting_again_and_again_is_one_stage_of_the_history(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        record(ledger, 1, *["download started"] * 3, "download done")

        found = pages.get("/board/shards/1", params={"table": TABLE}).json()

        ((stage,),) = [attempt["stages"] for attempt in found["attempts"]]
        assert stage["state"] == "done"
        assert stage["began_ms"] <= stage["at_ms"]


class TestChanges:
    def test_only_shards_with_new_events_are_sent(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        airflow.active_runs = {RUN}
        record(ledger, 1, "plan planned")
        record(ledger, 2, "plan planned")
        after = ledger.client.command("SELECT toUnixTimestamp64Micro(max(at)) FROM shard_ledger")
        record(ledger, 2, "download started")

        found = changes(pages, since=after)

        assert [cell[:2] for cell in found["cells"]] == [[2, STATES.index("downloading")]]

    def test_a_plan_of_many_shards_is_one_small_answer(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        airflow.active_runs = {RUN}
        record(ledger, 4999, "plan planned")
        after = ledger.client.command("SELECT toUnixTimestamp64Micro(max(at)) FROM shard_ledger")
        ledger.append([event(shard, "plan", "planned", "") for shard in range(410)])

        query = {"table": TABLE, "dataset": "little", "since": after}
        answer = pages.get("/board/changes", params=query)

        assert answer.json()["cells"] == [[n, STATES.index("queued")] for n in range(410)]
        assert len(answer.content) <= 5000

    def test_nothing_is_sent_when_nothing_happened(self, pages: TestClient, ledger: Ledger) -> None:
        record(ledger, 1, "plan planned")

        assert changes(pages, since=2**60)["cells"] == []

    def test_the_cursor_lies_before_the_newest_event(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        record(ledger, 1, "plan planned")

        found = changes(pages, since=board(pages)["changes"]["cursor"])

        assert [cell[0] for cell in found["cells"]] == [1]

    def test_its_query_says_what_the_view_says(self, ledger: Ledger) -> None:
        publish(ledger, 1)
        record(ledger, 1, "plan planned", "download started", "download failed", attempt=SECOND)
        record(ledger, 2, "plan planned", "download started")
        record(ledger, 2, "download started", bytes=7)
        publish(ledger, 3)
        record(ledger, 3, "plan planned")

        ask = {"table": TABLE, "since": 0, "overlap_us": 0}
        found = ledger.client.query(statement("board_shards"), parameters=ask).result_rows
        view = ledger.client.query(
            "SELECT shard, is_published, published_rows, toUnixTimestamp(published_at), "
            "(last_stage, last_state, run_id, last_at), last_stage, last_state, run_id, "
            "toUnixTimestamp(last_started_at), "
            "planned_at > last_at, planned_run_id, bytes_here "
            f"FROM shard_status WHERE table = '{TABLE}' ORDER BY shard"
        ).result_rows

        assert [row[0] for row in view] == [1, 2, 3]
        assert [row[1:] for row in found] == view

    def test_it_asks_the_same_view_as_the_gate(self, pages: TestClient, ledger: Ledger) -> None:
        publish(ledger, 1)
        record(ledger, 2, "plan planned", "download started", "download failed")

        failed = [shard for shard, state in states(pages).items() if state == "failed"]

        assert failed == failed_shards(ledger.client, TABLE, QUIET_S)


class TestTables:
    def test_before_the_first_run_each_listed_dataset_can_be_looked_at(
        self, pages: TestClient, client: Client
    ) -> None:
        page = pages.get("/shards", params={"table": "laion400m"})

        assert page.status_code == 200
        cells = page_data(page.text)["board"]["changes"]["cells"]
        assert len(cells) == 410
        assert {cell[1] for cell in cells} == {STATES.index("unplanned")}

    def test_changes_before_the_first_run_are_none(self, pages: TestClient, client: Client) -> None:
        assert changes(pages, since=0)["cells"] == []

    def test_the_table_used_last_comes_first(self, pages: TestClient, ledger: Ledger) -> None:
        for table in ("old", "new"):
            ledger.record_run(
                ORIGIN, table=table, dataset="sample", source="", shards="0", params={}
            )

        tables = page_data(pages.get("/shards").text)["tables"]

        assert [choice["table"] for choice in tables[:2]] == ["new", "old"]

    def test_a_dataset_whose_profile_is_gone_still_shows(
        self, pages: TestClient, ledger: Ledger
    ) -> None:
        ledger.record_run(
            ORIGIN, table=TABLE, dataset="no_such_profile", source="", shards="1", params={}
        )
        publish(ledger, 1)

        page = pages.get("/shards", params={"table": TABLE})

        assert [cell[0] for cell in page_data(page.text)["board"]["changes"]["cells"]] == [1]


class TestHistory:
    def test_attempts_come_newest_first_with_their_stages(
        self, pages: TestClient, ledger: Ledger, airflow: Airflow
    ) -> None:
        airflow.urls = {"metadata": "https://mirror.example/metadata_1.parquet"}
        record(ledger, 1, "plan planned")
        record(ledger, 1, "download started", "download done", "convert started", seconds=2.0)
        record(ledger, 1, "convert failed", error_class="BadNpy", error="it is truncated")
        record(ledger, 1, "download started", attempt=SECOND)

        found = pages.get("/board/shards/1", params={"table": TABLE}).json()

        second, first = found["attempts"]
        assert (second["attempt"], first["attempt"]) == (SECOND, FIRST)
        assert [(s["stage"], s["state"]) for s in first["stages"]] == [
            ("download", "done"),
            ("convert", "failed"),
        ]
        assert first["stages"][1]["error"] == "it is truncated"
        assert found["sources"] == airflow.urls

    def test_a_hash_keeps_all_its_digits(self, pages: TestClient, ledger: Ledger) -> None:
        record(ledger, 1, "download started")
        record(ledger, 1, "publish done", hash=2**64 - 2)

        found = pages.get("/board/shards/1", params={"table": TABLE}).json()

        assert found["attempts"][0]["stages"][-1]["hash"] == "fffffffffffffffe"


def page_data(html: str) -> dict[str, Any]:
    """Return the data that a page brings along."""
    text = html.split('id="data">')[1].split("</script>")[0]
    return dict(json.loads(text))


def test_it_says_when_alerts_reach_nobody(pages: TestClient, airflow: Airflow) -> None:
    assert 'id="warning"' not in pages.get("/shards").text

    airflow.alerts_warning = "There is no Airflow connection <laion_alerts>"

    assert "no Airflow connection &lt;laion_alerts&gt;." in pages.get("/shards").text
