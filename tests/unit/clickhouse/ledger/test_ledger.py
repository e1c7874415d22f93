from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import QUIET_S
from laion.clickhouse.ledger import Ledger, ShardOutcome, TaskOrigin
from laion.clickhouse.ledger.events import MAX_ERROR_CHARS
from laion.clickhouse.ledger.shard_facts import failed_shards
from laion.errors import BadNpy, ClickHouseError
from tests.unit.clickhouse.shard_steps import ORIGIN, TABLE, event, make_tables

FIRST, SECOND = "aaaa0001", "bbbb0002"


@pytest.fixture
def ledger(client: Client) -> Ledger:
    return make_tables(client)


def record(ledger: Ledger, shard: int, *steps: str, attempt: str = FIRST, **more: Any) -> None:
    """Append the events of an attempt one by one, written as `convert failed`."""
    for step in steps:
        stage, state = step.split()
        ledger.append([event(shard, stage, state, attempt, **more)])


def record_plan(ledger: Ledger, *shards: int, **more: Any) -> None:
    ledger.append([event(shard, "plan", "planned", "", **more) for shard in shards])


def rows(ledger: Ledger, columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM shard_ledger ORDER BY at"
    return [tuple(row) for row in ledger.client.query(query).result_rows]


def status(ledger: Ledger, shard: int) -> dict[str, Any]:
    found = ledger.client.query(
        "SELECT * FROM shard_status WHERE shard = {shard:UInt16}", parameters={"shard": shard}
    )
    (only,) = found.named_results()
    return dict(only)


def outcome(ledger: Ledger, shard: int = 1) -> ShardOutcome:
    outcomes = ledger.run_outcomes(ORIGIN.dag_id, ORIGIN.run_id)
    (only,) = [outcome for outcome in outcomes if outcome.shard == shard]
    return only


class TestStage:
    def test_it_begins_with_a_started_event(self, ledger: Ledger) -> None:
        with ledger.record_stage(event(1, "convert", "started")):
            assert rows(ledger, "stage, state") == [("convert", "started")]

    def test_it_ends_with_a_done_event_and_its_result(self, ledger: Ledger) -> None:
        with ledger.record_stage(event(1, "load", "started")) as result:
            result.rows_expected, result.rows_loaded = 60, 59
            result.bytes, result.hash = 1234, 2**64 - 1

        assert rows(ledger, "stage, state, rows_expected, rows_loaded, bytes, hash")[1:] == [
            ("load", "done", 60, 59, 1234, 2**64 - 1)
        ]

    def test_an_error_ends_it_with_a_failed_event_and_goes_on(self, ledger: Ledger) -> None:
        with (
            pytest.raises(BadNpy, match="it is truncated"),
            ledger.record_stage(event(1, "convert", "started", rows_expected=60)),
        ):
            raise BadNpy("it is truncated 'é'")

        assert rows(ledger, "stage, state, rows_expected, error_class, error")[1:] == [
            ("convert", "failed", 60, "BadNpy", "it is truncated 'é'")
        ]

    def test_an_error_goes_on_where_the_ledger_cannot_be_written(
        self, ledger: Ledger, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            with ledger.record_stage(event(1, "convert", "started")):
                ledger.client.command("DROP TABLE shard_ledger")
                raise BadNpy("it is truncated")

        with pytest.raises(BadNpy, match="it is truncated"):
            fail()
        assert "The ledger does not learn that convert failed." in caplog.messages

    def test_a_long_error_is_cut(self, ledger: Ledger) -> None:
        with pytest.raises(BadNpy), ledger.record_stage(event(1, "convert", "started")):
            raise BadNpy("x" * 10_000)

        assert rows(ledger, "length(error)")[1:] == [(MAX_ERROR_CHARS,)]

    def test_its_seconds_are_recorded_at_the_end(self, ledger: Ledger) -> None:
        with ledger.record_stage(event(1, "convert", "started")):
            pass

        (started,), (done,) = rows(ledger, "seconds")
        assert started == 0
        assert done > 0

    def test_an_event_tells_which_task_it_comes_from(self, ledger: Ledger) -> None:
        origin = TaskOrigin("laion_ingest", "run_9", try_number=2, map_index=4, log_url="http://l")
        ledger.append([replace(event(1, "load", "done"), origin=origin)])

        assert rows(ledger, "dag_id, run_id, try_number, map_index, log_url, stage_number") == [
            ("laion_ingest", "run_9", 2, 4, "http://l", 3)
        ]

    def test_a_ledger_that_is_not_there_is_typed(self, client: Client) -> None:
        with pytest.raises(ClickHouseError, match="the ledger"):
            Ledger(client).append([event(1, "load", "done")])


class TestStatus:
    def test_a_planned_shard_has_no_attempt(self, ledger: Ledger) -> None:
        record_plan(ledger, 1, rows_expected=60)

        found = status(ledger, 1)

        assert (found["last_attempt"], found["last_state"]) == ("", "planned")
        assert (found["is_published"], found["rows_expected"]) == (0, 60)

    def test_a_published_shard_tells_attempt_rows_and_hash(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done")
        record(ledger, 1, "publish done", rows_loaded=60, hash=7)

        found = status(ledger, 1)

        assert found["is_published"] == 1
        assert (found["published_attempt"], found["published_run_id"]) == (FIRST, "run_1")
        assert (found["published_rows"], found["published_hash"]) == (60, 7)

    def test_a_later_failed_attempt_leaves_the_publication(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done", "publish done")

        record(ledger, 1, "download done", "convert failed", attempt=SECOND, error_class="BadNpy")

        found = status(ledger, 1)
        assert (found["is_published"], found["published_attempt"]) == (1, FIRST)
        assert (found["last_attempt"], found["last_stage"]) == (SECOND, "convert")
        assert (found["last_state"], found["error_class"]) == ("failed", "BadNpy")

    def test_the_last_attempt_is_the_one_that_started_last(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started")
        record(ledger, 1, "download started", "download done", attempt=SECOND)

        record(ledger, 1, "download failed")

        assert status(ledger, 1)["last_attempt"] == SECOND

    def test_the_latest_publication_counts(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done", "publish done")

        record(ledger, 1, "download done", "publish done", attempt=SECOND, rows_loaded=61)

        found = status(ledger, 1)
        assert (found["published_attempt"], found["published_rows"]) == (SECOND, 61)

    def test_a_task_cleared_after_publication_does_not_make_it_failed(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done", "convert done", "load done", "publish done")

        record(ledger, 1, "convert started", "convert failed", error_class="StagingGone")

        found = status(ledger, 1)
        assert (found["last_stage"], found["last_state"]) == ("publish", "done")
        assert failed_shards(ledger.client, TABLE, QUIET_S) == []

    def test_a_stage_tried_again_counts_as_it_ended_last(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done", "convert failed", "convert started", "convert done")

        assert status(ledger, 1)["last_state"] == "done"

    def test_planning_a_shard_again_leaves_its_last_attempt(self, ledger: Ledger) -> None:
        record(ledger, 1, "download failed")

        record_plan(ledger, 1, run_id="run_2")

        assert status(ledger, 1)["last_attempt"] == FIRST
        assert failed_shards(ledger.client, TABLE, QUIET_S) == [1]


class TestShards:
    @pytest.fixture
    def ledger(self, client: Client) -> Ledger:
        """Shard 1 is published, 2 failed, 3 only planned, 4 under way, 5 published, then failed."""
        ledger = make_tables(client)
        record_plan(ledger, 5, 4, 3, 2, 1)
        record(ledger, 1, "download done", "publish done")
        record(ledger, 2, "download done", "convert failed")
        record(ledger, 4, "download started")
        record(ledger, 5, "download done", "publish done")
        record(ledger, 5, "download failed", attempt=SECOND)
        ledger.append([replace(event(9, "download", "failed"), table="another")])
        return ledger

    def test_planned_are_all_that_were_ever_planned(self, ledger: Ledger) -> None:
        assert ledger.planned_shards(TABLE) == [1, 2, 3, 4, 5]

    def test_published_are_those_in_the_base_table(self, ledger: Ledger) -> None:
        assert ledger.published_shards(TABLE) == [1, 5]

    def test_failed_are_those_whose_last_attempt_failed(self, ledger: Ledger) -> None:
        assert failed_shards(ledger.client, TABLE, QUIET_S) == [2, 5]

    def test_one_that_was_killed_over_an_earlier_publication_failed_once_its_run_is_quiet(
        self, ledger: Ledger
    ) -> None:
        ledger.client.command(f"INSERT INTO {TABLE} (id, shard) VALUES (100000000, 1)")
        record(ledger, 1, "download started", attempt=SECOND)

        assert failed_shards(ledger.client, TABLE, QUIET_S) == [2, 5]
        assert failed_shards(ledger.client, TABLE, -1) == [1, 2, 5]

    def test_each_table_has_its_own(self, ledger: Ledger) -> None:
        assert ledger.planned_shards("another") == [9]
        assert failed_shards(ledger.client, "another", QUIET_S) == [9]
        assert ledger.planned_shards("none") == []


class TestRun:
    def test_what_it_was_asked_is_recorded(self, ledger: Ledger) -> None:
        ledger.record_run(
            ORIGIN,
            table=TABLE,
            dataset="little",
            source="http://***@host",
            shards="0-2",
            params={"recall_target": 0.95, "table": 'it\'s "hold"'},
        )

        query = "SELECT dag_id, run_id, table, dataset, source, shards, params FROM ingest_runs"
        (found,) = ledger.client.query(query).result_rows
        assert tuple(found[:6]) == (*(ORIGIN.dag_id, ORIGIN.run_id), TABLE, "little", *found[4:6])
        assert tuple(found[4:6]) == ("http://***@host", "0-2")
        assert json.loads(found[6]) == {"recall_target": 0.95, "table": 'it\'s "hold"'}

    def test_its_shards_stay_as_they_were_planned_first(self, ledger: Ledger) -> None:
        for shards in ("0-2", "0-5"):
            ledger.record_run(
                ORIGIN, table=TABLE, dataset="little", source="", shards=shards, params={}
            )

        assert ledger.frozen_shards(ORIGIN) == "0-2"

    def test_a_run_that_was_never_planned_has_no_shards(self, ledger: Ledger) -> None:
        assert ledger.frozen_shards(ORIGIN) is None

    def test_a_run_planned_with_no_shards_is_told_from_one_never_planned(
        self, ledger: Ledger
    ) -> None:
        ledger.record_run(ORIGIN, table=TABLE, dataset="little", source="", shards="", params={})

        assert ledger.frozen_shards(ORIGIN) == ""


class TestOutcomes:
    def test_a_published_shard_is_validated_with_its_rows(self, ledger: Ledger) -> None:
        record_plan(ledger, 1, rows_expected=60)
        record(ledger, 1, "download done")
        record(ledger, 1, "publish done", rows_expected=60, rows_loaded=60)

        found = outcome(ledger)

        assert found.is_published
        assert (found.state, found.rows_expected, found.rows_loaded) == ("validated", 60, 60)

    def test_a_failed_shard_tells_stage_error_and_log(self, ledger: Ledger) -> None:
        record_plan(ledger, 1)
        record(ledger, 1, "download done")
        record(ledger, 1, "convert failed", error_class="BadNpy", error="it is truncated")

        found = outcome(ledger)

        assert not found.is_published
        assert (found.state, found.error_class) == ("convert failed", "BadNpy")
        assert (found.error, found.log_url) == ("it is truncated", ORIGIN.log_url)

    def test_a_shard_that_never_started_took_no_time(self, ledger: Ledger) -> None:
        record_plan(ledger, 1)

        found = outcome(ledger)

        assert (found.state, found.seconds) == ("not started", 0)

    def test_a_shard_whose_task_was_killed_is_still_under_way(self, ledger: Ledger) -> None:
        record_plan(ledger, 1)
        record(ledger, 1, "download done", "convert started")

        assert outcome(ledger).state == "convert started"

    def test_a_task_cleared_after_publication_leaves_the_shard_validated(
        self, ledger: Ledger
    ) -> None:
        record_plan(ledger, 1)
        record(ledger, 1, "download done", "publish done", "convert failed", error_class="X")

        assert (outcome(ledger).state, outcome(ledger).error_class) == ("validated", "")

    def test_a_publication_by_another_run_does_not_count(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done", "publish done", run_id="run_0")
        record_plan(ledger, 1)

        assert outcome(ledger).state == "not started"

    def test_they_come_by_shard_number(self, ledger: Ledger) -> None:
        record_plan(ledger, 12, 3, 7)

        outcomes = ledger.run_outcomes(ORIGIN.dag_id, ORIGIN.run_id)

        assert [found.shard for found in outcomes] == [3, 7, 12]

    def test_a_run_without_shards_has_none(self, ledger: Ledger) -> None:
        assert ledger.run_outcomes(ORIGIN.dag_id, ORIGIN.run_id) == []


class TestAttempts:
    def test_a_publication_of_a_later_attempt_is_newer(self, ledger: Ledger) -> None:
        record(ledger, 1, "download done")
        record(ledger, 1, "download done", "publish done", attempt=SECOND, run_id="run_2")

        assert ledger.newer_publication(TABLE, 1, FIRST) == (SECOND, "run_2")
        assert ledger.newer_publication(TABLE, 1, SECOND) is None

    def test_a_later_publication_of_an_earlier_attempt_is_not_newer(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started")
        record(ledger, 1, "download started", attempt=SECOND)
        record(ledger, 1, "publish done")

        assert ledger.newer_publication(TABLE, 1, SECOND) is None

    def test_a_later_attempt_that_is_not_published_is_not_newer(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started")
        record(ledger, 1, "download done", "load done", "publish failed", attempt=SECOND)

        assert ledger.newer_publication(TABLE, 1, FIRST) is None

    def test_a_publication_of_another_shard_is_not_newer(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started")
        record(ledger, 2, "download started", "publish done", attempt=SECOND)

        assert ledger.newer_publication(TABLE, 1, FIRST) is None

    def test_a_publication_is_found_with_rows_and_hash(self, ledger: Ledger) -> None:
        record(ledger, 1, "publish done", rows_loaded=60, hash=2**63 + 1)

        assert ledger.publication(TABLE, 1, FIRST) == (60, 2**63 + 1)
        assert ledger.publication(TABLE, 1, SECOND) is None

    def test_the_other_attempts_of_the_run_are_found(self, ledger: Ledger) -> None:
        record_plan(ledger, 1)
        record(ledger, 1, "download started")
        record(ledger, 1, "download started", attempt=SECOND)
        record(ledger, 1, "download started", attempt="cccc0003", run_id="run_2")

        assert ledger.attempts(event(1, "download", "started", SECOND)) == [FIRST]


class TestFiles:
    def test_the_files_of_the_last_download_are_found(self, ledger: Ledger) -> None:
        for size in (5, 6):
            with ledger.record_stage(event(1, "download", "started")) as result:
                result.files = json.dumps({"metadata": {"size": size}})
        with ledger.record_stage(event(1, "convert", "started")):
            pass

        assert ledger.last_files(TABLE, 1) == {"metadata": {"size": 6}}

    def test_a_shard_that_was_never_fetched_has_none(self, ledger: Ledger) -> None:
        assert ledger.last_files(TABLE, 1) == {}

    def test_progress_leaves_a_download_under_way(self, ledger: Ledger) -> None:
        start = event(1, "download", "started")
        with ledger.record_stage(start):
            ledger.append([replace(start, bytes=500)])

            assert status(ledger, 1)["last_state"] == "started"
            assert rows(ledger, "bytes") == [(0,), (500,)]


class TestMoving:
    def test_one_at_work_moves_however_long_it_takes(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started", "download done", "convert started")

        assert ledger.are_moving([FIRST], quiet_s=0)

    def test_one_between_two_tasks_moves_for_a_while(self, ledger: Ledger) -> None:
        record(ledger, 1, "download started", "download done")

        assert ledger.are_moving([FIRST, SECOND], quiet_s=60)
        assert not ledger.are_moving([FIRST, SECOND], quiet_s=0)

    def test_unknown_ones_do_not(self, ledger: Ledger) -> None:
        assert not ledger.are_moving([SECOND], quiet_s=60)
        assert not ledger.are_moving([], quiet_s=60)
