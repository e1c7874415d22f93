from __future__ import annotations

import threading

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.schema import ensure_ledger
from laion.clickhouse.search_table import lease
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BucketState, BuildPlan, IndexOptions
from laion.errors import IndexBuildLost

FIRST, SECOND = TaskOrigin("laion_ingest", "first"), TaskOrigin("laion_ingest", "second")
PLAN = BuildPlan(
    build_id="aaaa0001",
    root="aaaa0001",
    vectors={"image_embedding": 16},
    shards_per_bucket=2,
    buckets=(0, 1),
    options=IndexOptions(parameters={"m": 32, "ef_construction": 128}),
)


@pytest.fixture
def ledger(client: Client) -> Client:
    ensure_ledger(client)
    return client


def builds(client: Client, origin: TaskOrigin = FIRST, table: str = "t") -> Builds:
    return Builds(client, table, origin)


class TestLease:
    def test_the_first_claim_takes_it_and_the_same_run_keeps_it(self, ledger: Client) -> None:
        holder = builds(ledger).claim()

        assert builds(ledger).is_own(holder)
        assert builds(ledger).claim() == holder
        assert builds(ledger, SECOND).claim() == holder

    def test_each_table_has_its_own(self, ledger: Client) -> None:
        builds(ledger).claim()

        assert builds(ledger, SECOND, "u").is_own(builds(ledger, SECOND, "u").claim())

    @pytest.mark.parametrize("ending", ["published", "rejected", "failed", "withdrawn"])
    def test_a_build_that_ended_lets_go(self, ledger: Client, ending: str) -> None:
        holder = builds(ledger).claim()

        builds(ledger).append(holder.build_id, ending)

        assert builds(ledger, SECOND).is_own(builds(ledger, SECOND).claim())

    def test_of_many_rival_claims_one_wins(self, ledger: Client) -> None:
        origins = [TaskOrigin("laion_ingest", f"run {number}") for number in range(5)]
        barrier, holders = threading.Barrier(len(origins)), {}

        def claim(origin: TaskOrigin) -> None:
            barrier.wait()
            holders[origin] = builds(ledger, origin).claim()

        threads = [threading.Thread(target=claim, args=(origin,)) for origin in origins]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(holders.values())) == 1
        winners = [o for o, holder in holders.items() if builds(ledger, o).is_own(holder)]
        assert len(winners) == 1

    def test_one_that_writes_nothing_for_too_long_lapses(
        self, ledger: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        holder = builds(ledger).claim()
        monkeypatch.setattr(lease, "LEASE_S", 0)

        assert builds(ledger).holder() is None
        monkeypatch.undo()
        assert builds(ledger).holder() == holder

    def test_holding_renews_it(self, ledger: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, "ALIVE_EVERY_S", 0.05)
        holder = builds(ledger).claim()
        renewed = "SELECT count() FROM search_builds WHERE state = 'alive'"

        with builds(ledger).holding(holder.build_id):
            while not ledger.command(renewed):
                pass

        assert builds(ledger).holder() == holder

    def test_one_that_lost_it_cannot_hold(self, ledger: Client) -> None:
        lost = builds(ledger).claim()
        builds(ledger).append(lost.build_id, "failed")
        taken = builds(ledger, SECOND).claim()

        with pytest.raises(IndexBuildLost, match=f"build {taken.build_id} of run second"):
            builds(ledger).hold(lost.build_id)

    def test_one_that_failed_takes_it_again_when_nobody_has(self, ledger: Client) -> None:
        holder = builds(ledger).claim()
        builds(ledger).append(holder.build_id, "failed")

        builds(ledger).hold(holder.build_id)

        assert builds(ledger).holder() == holder


class TestMemory:
    def test_a_plan_comes_back_as_it_was(self, ledger: Client) -> None:
        builds(ledger).append(PLAN.build_id, "claimed")
        builds(ledger).append(PLAN.build_id, "planned", PLAN)
        builds(ledger).append(PLAN.build_id, "alive")

        assert builds(ledger).of_run() == (PLAN, "planned")
        assert builds(ledger, SECOND).of_run() == (None, "")

    def test_a_bucket_is_as_it_was_last(self, ledger: Client) -> None:
        shards = ((0, "aaaa0001", 100), (1, "", 50))
        built = BucketState(0, "built", "aaaa0001", shards, 148, 2, 9999)

        builds(ledger).record_bucket("aaaa0001", BucketState(0, "filling", "aaaa0001", shards))
        builds(ledger).record_bucket("aaaa0001", built)

        assert builds(ledger).buckets("aaaa0001") == {0: built}
        assert builds(ledger).buckets("bbbb0002") == {}

    def test_a_bucket_has_a_range_of_shards(self) -> None:
        assert [PLAN.shards_of(bucket) for bucket in PLAN.buckets] == [(0, 1), (2, 3)]


def test_the_plan_of_a_build_of_an_earlier_release_is_read() -> None:
    earlier = (
        '{"build_id": "aaaa0001", "root": "aaaa0001", "dimension": 16, '
        '"vectors": ["image_embedding"], "shards_per_bucket": 2, "buckets": [0, 1], "options": '
        '{"metric": "cosineDistance", "quantization": "bf16", "m": 32, "ef_construction": 128, '
        '"buckets": 5, "min_bucket_rows": 10000}}'
    )

    assert BuildPlan.from_json(earlier) == PLAN
    assert BuildPlan.from_json(PLAN.to_json()) == PLAN
