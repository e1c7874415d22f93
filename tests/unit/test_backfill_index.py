"""Shards that the search table does not hold as they are, and what a backfill would do about it."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import BackfillRequest, ingest_conf, plan_backfill
from laion.clickhouse.search_table import lease
from tests.unit.clickhouse.shard_steps import TABLE, build_search
from tests.unit.conftest import Load
from tests.unit.test_backfill import ALL, SHARDS, found, why


class TestSearchTable:
    @pytest.fixture(autouse=True)
    def short_settling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, "SETTLE_S", 0.05)

    def test_a_shard_published_after_the_build_is_stale(self, client: Client, load: Load) -> None:
        load(*SHARDS)
        build_search(client)
        assert plan_backfill(client, ALL) == []

        load(1, attempt="cccc0003", run_id="run_2")

        repairs = plan_backfill(client, ALL)
        assert [(r.shard, r.reason, r.action) for r in repairs] == [(1, "stale", "index")]
        assert repairs[0].why == "the search table holds attempt aaaa0001 of it, not cccc0003"
        conf = ingest_conf(client, ALL, repairs)
        assert conf is not None
        assert (conf["shards"], conf["build_index"]) == ("", True)

    def test_a_shard_that_the_search_table_never_had_is_stale(
        self, client: Client, load: Load
    ) -> None:
        load(0)
        build_search(client)

        load(1, run_id="run_2")

        assert why(client, 1) == "it is not in the search table yet"

    def test_what_is_missing_from_the_base_table_is_loaded_rather_than_indexed(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)
        build_search(client)

        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")

        assert found(client) == {1: ("missing", "load")}

    def test_a_shard_of_which_rows_were_deleted_is_mismatched_and_stale(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)
        build_search(client)

        client.command(f"DELETE FROM {TABLE} WHERE shard = 1 AND id % 100 < 3")

        assert found(client) == {1: ("mismatched", "load")}
        (stale,) = plan_backfill(client, BackfillRequest(TABLE, "stale"))
        assert (stale.shard, stale.action) == (1, "index")
        assert stale.why == ("the search table was filled from 60 rows of it, the table holds 57")
        build_search(client)
        assert found(client, BackfillRequest(TABLE, "stale")) == {}

    def test_a_shard_whose_partition_was_dropped_is_stale_too(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)
        build_search(client)

        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")

        assert found(client, BackfillRequest(TABLE, "stale")) == {1: ("stale", "index")}

    def test_without_a_search_table_nothing_is_stale(self, client: Client, load: Load) -> None:
        load(*SHARDS)

        assert found(client, BackfillRequest(TABLE, "stale")) == {}
