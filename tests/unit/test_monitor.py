"""What the monitor says of a table that is right, and of the same table damaged in every way."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.identifiers import staging_table
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.clickhouse.search_table import lease
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.plan import IndexOptions
from laion.errors import ClickHouseError
from laion.monitor import (
    NIGHTS,
    Finding,
    Skipped,
    check_counts,
    check_disks,
    check_hashes,
    check_index,
    check_leftovers,
    check_recall,
    check_runs,
    monitored_tables,
    record_findings,
    run_checks,
)
from tests.unit.clickhouse.shard_steps import QUERIES, TABLE, build_search, event
from tests.unit.conftest import Load

RECALL = {"queries": QUERIES, "budget": 10**9}


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)


def test_a_table_as_it_was_loaded_has_no_finding(client: Client, load: Load) -> None:
    load(0, 1)
    build_search(client)

    assert check_counts(client, TABLE) == []
    assert check_index(client, TABLE) == []
    assert check_leftovers(client, TABLE, older_s=3600) == []
    assert check_disks(client) == []
    assert [f.state for f in check_recall(client, TABLE, **RECALL)] == ["ok"]
    assert check_hashes(client, TABLE, night=1) == [
        Finding("hashes", "ok", "shards 1 are as they were published")
    ]


class TestCounts:
    def test_each_cause_is_one_finding_with_its_shards(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0, 1, 2, 3)
        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 0")
        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 2")
        client.command(f"INSERT INTO {TABLE} SELECT * FROM {TABLE} WHERE shard = 3 LIMIT 1")
        ledger.append([event(7, "plan", "planned", "", run_id="dropped_2")])

        missing, mismatched, dropped = check_counts(client, TABLE, quiet_s=-1)

        assert dropped.summary == "shards 7 are missing: run dropped_2 planned it and never began"
        assert missing.summary.startswith("shards 0,2 are missing: run run_1 published 60 rows")
        assert missing.remedy == (
            "airflow dags trigger laion_backfill --conf "
            """'{"table": "little", "shards": "0,2", "dry_run": false}'"""
        )
        assert mismatched.summary == (
            "shards 3 are mismatched: run run_1 published 60 rows, the table holds 61"
        )


def test_rows_that_were_deleted_are_found_in_the_table_and_in_the_search_table(
    client: Client, load: Load
) -> None:
    load(0, 1)
    build_search(client)
    client.command(f"DELETE FROM {TABLE} WHERE id = 7")

    (counted,) = check_counts(client, TABLE)
    (indexed,) = check_index(client, TABLE)

    assert counted.summary == (
        "shards 0 are mismatched: run run_1 published 60 rows, the table holds 59"
    )
    assert indexed.summary.startswith("shards 0 are stale: the search table was filled from 60")


class TestRuns:
    def test_one_that_should_have_ended_is_found_until_another_one_has(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0)
        run = {"table": TABLE, "dataset": "little", "source": "", "shards": "1", "params": {}}
        lost, next_one = TaskOrigin("laion_ingest", "lost"), TaskOrigin("laion_ingest", "next")
        ledger.record_run(lost, **run)

        assert check_runs(client, TABLE, deadline_s=3600) == []
        (finding,) = check_runs(client, TABLE, deadline_s=0.1)
        assert finding.summary.startswith("run lost was planned 0 hours ago and has not come to")
        ledger.record_run(next_one, **run)
        ledger.record_end(next_one, table=TABLE, planned=1, missing=0)
        assert check_runs(client, TABLE, deadline_s=0.1) == []

    def test_without_a_deadline_none_is_late(self, client: Client) -> None:
        with pytest.raises(Skipped, match="no deadline"):
            check_runs(client, TABLE, deadline_s=0)


class TestHashes:
    def test_other_contents_in_as_many_rows_are_found(self, client: Client, load: Load) -> None:
        load(0, 1)
        client.command(
            f"ALTER TABLE {TABLE} UPDATE caption = 'another' IN PARTITION 1 WHERE id % 7 = 0",
            settings={"mutations_sync": 1},
        )
        assert check_counts(client, TABLE) == []

        (finding,) = check_hashes(client, TABLE, night=1)

        assert finding.state == "found"
        assert finding.summary.startswith("shards 1: as many rows as were published")

    def test_every_shard_has_its_turn_in_thirty_nights(self, client: Client, load: Load) -> None:
        load(0, 1, 31)
        told = []
        for night in range(NIGHTS):
            try:
                told += check_hashes(client, TABLE, night)
            except Skipped:
                continue

        assert [finding.summary.split()[1] for finding in told] == ["0", "1,31"]


class TestSearchTable:
    def test_a_shard_published_after_the_build_is_found(self, client: Client, load: Load) -> None:
        load(0, 1)
        build_search(client)
        load(1, attempt="cccc0003")

        (finding,) = check_index(client, TABLE)

        assert finding.summary.startswith("shards 1 are stale")
        assert '"which": "stale"' in finding.remedy

    def test_recall_below_the_target_is_found(self, client: Client, load: Load) -> None:
        load(0, 1)
        build_search(client)
        client.command(
            "ALTER TABLE recall_history UPDATE target = 1.5 WHERE 1",
            settings={"mutations_sync": 1},
        )

        findings = check_recall(client, TABLE, **RECALL)

        assert {finding.state for finding in findings} == {"found"}
        assert "below 1.5" in findings[0].summary

    @pytest.mark.parametrize("kind", OFFERS)
    @pytest.mark.parametrize("view", [f"{TABLE}_near", f"{TABLE}_near_text"])
    def test_a_view_that_is_gone_is_found(
        self, client: Client, load: Load, kind: str, view: str
    ) -> None:
        load(0)
        build_search(client, IndexOptions(kind=kind, quantization="auto"))
        client.command(f"DROP VIEW {view} SYNC")

        (finding,) = check_index(client, TABLE)

        assert f"nobody can search by {view}: " in finding.summary
        assert "build_index on" in finding.remedy

    def test_a_search_table_that_is_gone_is_found(self, client: Client, load: Load) -> None:
        load(0)
        build_search(client)
        client.command(f"DROP TABLE {TABLE}_search SYNC")

        (finding,) = check_index(client, TABLE)

        assert finding.summary == f"{TABLE}_search, which was put in place last, is gone"

    @pytest.mark.parametrize("kind", ["quantized", "ivf"])
    def test_a_table_that_a_view_reads_and_that_is_gone_is_found(
        self, client: Client, load: Load, kind: str
    ) -> None:
        load(0)
        plan = build_search(client, IndexOptions(kind=kind, quantization="auto"))
        client.command(f"DROP TABLE {TABLE}_search_{plan.build_id}_text SYNC")

        (finding,) = check_index(client, TABLE)

        assert finding.state == "found"
        assert "a table of the search table is gone" in finding.summary
        assert "build_index on" in finding.remedy

    def test_the_remedy_names_what_the_next_build_would_not_choose_by_itself(
        self, client: Client, load: Load
    ) -> None:
        load(0)
        build_search(client, IndexOptions(metric="L2Distance"))
        client.command(
            "ALTER TABLE recall_history UPDATE target = 1.5 WHERE 1",
            settings={"mutations_sync": 1},
        )

        findings = check_recall(client, TABLE, **RECALL)

        assert "index_kind hnsw, index_metric L2Distance and build_index on" in findings[0].remedy

    def test_without_one_there_is_no_recall(self, client: Client, load: Load) -> None:
        load(0)

        with pytest.raises(Skipped, match="no index that could find too little"):
            check_recall(client, TABLE, **RECALL)


def test_a_staging_table_left_behind_is_found_when_it_is_old_enough(
    client: Client, load: Load
) -> None:
    load(0)
    names = [staging_table(TABLE, 1, "dddd0004"), f"{TABLE}_staging_area"]
    for name in names:
        client.command(f"CREATE TABLE {name} AS {TABLE}")
    client.command(f"DROP TABLE {staging_table(TABLE, 0, 'aaaa0001')} SYNC")

    assert check_leftovers(client, TABLE, older_s=3600) == []
    (finding,) = check_leftovers(client, TABLE, older_s=0)

    assert finding.summary == "staging tables are left: little_staging_1_dddd0004"
    assert finding.remedy == (
        "DROP TABLE little_staging_1_dddd0004 SYNC SETTINGS max_table_size_to_drop = 0"
    )


class TestRunning:
    def test_one_check_that_fails_does_not_keep_the_others_from_running(self) -> None:
        def fail() -> list[Finding]:
            raise ClickHouseError("no answer")

        def skip() -> list[Finding]:
            raise Skipped("not here")

        findings = run_checks({"one": fail, "two": skip, "three": list})

        assert findings == [
            Finding("one", "failed", "the check could not be made: ClickHouseError: no answer"),
            Finding("two", "skipped", "not here"),
            Finding("three", "ok", "as it should be"),
        ]

    def test_what_was_found_is_kept(self, client: Client, ledger: Ledger) -> None:
        record_findings(client, TABLE, "run_1", [Finding("counts", "found", "a", "b", 1.5)])

        kept = client.query(
            "SELECT table, run_id, check, state, summary, remedy, seconds FROM monitor_findings"
        ).result_rows
        assert kept == [(TABLE, "run_1", "counts", "found", "a", "b", 1.5)]

    def test_every_table_that_was_loaded_is_monitored(self, client: Client, load: Load) -> None:
        load(0)

        assert monitored_tables(client) == [(TABLE, "little")]

    def test_a_worker_that_was_killed_is_found_when_its_run_has_been_quiet(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0, 2)
        ledger.append([event(1, "plan", "planned", ""), event(1, "load", "started", "dddd0004")])
        ledger.append([event(2, "convert", "started", "eeee0005")])

        assert check_counts(client, TABLE) == []
        never_in, still_in = check_counts(client, TABLE, quiet_s=-1)

        assert never_in.summary == (
            "shards 1 are missing: run run_1 stopped in the middle of 'load': its worker was "
            "killed or lost"
        )
        assert still_in.summary.startswith("shards 2 are failed: its last attempt stopped")
        assert still_in.summary.endswith("an earlier publication is still in")
