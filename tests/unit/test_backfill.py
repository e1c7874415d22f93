"""Damage of every kind, done to a real table, and what a backfill would do about it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import (
    BackfillRequest,
    ShardRepair,
    claim_shards,
    format_plan,
    ingest_conf,
    plan_backfill,
    shards_to_load,
)
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.errors import BadRequest, NeverLoaded, TableMismatch
from tests.embedded_server import EmbeddedServer, poll
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    event,
)
from tests.unit.conftest import PARAMS, Load

SHARDS = (0, 1, 2)
ALL = BackfillRequest(TABLE)

KILLED_LOAD = """
import sys, time
from pathlib import Path
import clickhouse_connect
from laion.clickhouse.shards import load
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.convert import convert_shard
from tests.shard_files import files_of
from tests.unit.conftest import PARAMS, Load
from tests.unit.clickhouse.shard_steps import event

host, port, password, database, source, target, shard = sys.argv[1:]
client = clickhouse_connect.get_client(
    host=host, port=int(port), password=password, database=database,
    autogenerate_session_id=False,
)
whole_stream = load.stream_shard

def endless_stream(*args):
    yield from whole_stream(*args)
    time.sleep(600)

load.stream_shard = endless_stream
with Ledger(client).record_stage(event(int(shard), "load", "started", "dddd0004")):
    files = files_of(Path(source), int(shard), attempt="dddd0004")
    load.load_shard(client, convert_shard(files, Path(target)))
"""


def found(client: Client, request: BackfillRequest = ALL) -> dict[int, tuple[str, str]]:
    """Return reason and action by shard."""
    return {r.shard: (r.reason, r.action) for r in plan_backfill(client, request)}


def why(client: Client, shard: int, request: BackfillRequest = ALL) -> str:
    (only,) = [r.why for r in plan_backfill(client, request) if r.shard == shard]
    return only


class TestDamage:
    def test_a_table_as_it_was_loaded_needs_nothing(self, client: Client, load: Load) -> None:
        load(*SHARDS)

        assert plan_backfill(client, ALL) == []
        assert ingest_conf(client, ALL, []) is None

    def test_a_partition_dropped_behind_our_back_is_missing(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)

        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")

        assert plan_backfill(client, ALL) == [
            ShardRepair(
                1,
                "missing",
                "run run_1 published 60 rows, and the table has none of them: its partition was "
                "dropped",
                "load",
                rows_expected=60,
                rows_held=0,
            )
        ]

    def test_rows_too_many_or_too_few_are_mismatched(self, client: Client, load: Load) -> None:
        load(*SHARDS)

        client.command(f"INSERT INTO {TABLE} SELECT * FROM {TABLE} WHERE shard = 0 LIMIT 1")
        client.command(
            f"ALTER TABLE {TABLE} DELETE WHERE shard = 2 AND id % 2 = 0",
            settings={"mutations_sync": 1},
        )

        assert found(client) == {0: ("mismatched", "load"), 2: ("mismatched", "load")}
        assert why(client, 0) == "run run_1 published 60 rows, the table holds 61"
        assert why(client, 2) == "run run_1 published 60 rows, the table holds 30"

    def test_rows_that_no_run_has_published_are_mismatched(
        self, client: Client, load: Load
    ) -> None:
        load(0)

        client.command(f"INSERT INTO {TABLE} SELECT * REPLACE(9 AS shard) FROM {TABLE}")

        assert found(client) == {9: ("mismatched", "load")}
        assert "60 rows of it that no run has published" in why(client, 9)

    def test_a_shard_whose_last_attempt_failed(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(*SHARDS)
        error = {"error_class": "BadNpy", "error": "img_emb_1.npy\nis truncated"}
        ledger.append([event(1, "download", "started", "bbbb0002")])
        ledger.append([event(1, "download", "failed", "bbbb0002", **error)])
        ledger.record_end(ORIGIN, table=TABLE, planned=1, missing=1)

        assert found(client) == {1: ("failed", "load")}
        assert why(client, 1) == (
            "its last attempt failed in download: BadNpy: img_emb_1.npy is truncated; an earlier "
            "publication is still in"
        )

    def test_a_worker_killed_in_the_middle_of_a_load(
        self,
        client: Client,
        clickhouse_server: EmbeddedServer,
        ledger: Ledger,
        load: Load,
        shard_directory: Path,
        tmp_path: Path,
    ) -> None:
        load(0, 1)
        write_little_shard(shard_directory, 2)
        ledger.append([event(2, "plan", "planned", "")])
        server = clickhouse_server
        args = [server.host, str(server.port), server.password, str(client.database)]
        worker = subprocess.Popen(
            [
                sys.executable,
                "-c",
                KILLED_LOAD,
                *args,
                shard_directory,
                tmp_path / "2.parquet",
                "2",
            ],
            cwd=Path(__file__).parents[2],
        )
        staging = f"{TABLE}_staging_2_dddd0004"
        poll(lambda: client.command(f"EXISTS TABLE {staging}"))
        worker.send_signal(signal.SIGKILL)
        worker.wait()

        assert found(client) == {2: ("missing", "wait")}
        at_once = BackfillRequest(TABLE, quiet_s=-1)
        assert found(client, at_once) == {2: ("missing", "load")}
        assert why(client, 2) == "run run_1 is at work on it"
        assert why(client, 2, at_once) == (
            "run run_1 stopped in the middle of 'load': its worker was killed or lost"
        )

    def test_a_run_that_was_dropped_before_it_began(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0)
        ledger.append([event(s, "plan", "planned", "", run_id="dropped") for s in (1, 2)])

        at_once = BackfillRequest(TABLE, quiet_s=-1)
        assert found(client) == {1: ("missing", "wait"), 2: ("missing", "wait")}
        assert found(client, at_once) == {1: ("missing", "load"), 2: ("missing", "load")}
        assert why(client, 1, at_once) == "run dropped planned it and never began"

    def test_a_shard_that_a_later_run_has_planned_is_left_to_it(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0, 1)
        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")
        ledger.append([event(1, "plan", "planned", "", run_id="later")])

        assert found(client) == {1: ("missing", "wait")}
        assert why(client, 1).startswith("run later is at work on it (run run_1 published 60 rows")
        ledger.record_end(TaskOrigin("laion_ingest", "later"), table=TABLE, planned=1, missing=1)
        assert found(client) == {1: ("missing", "load")}

    def test_a_table_is_repaired_by_one_backfill_at_a_time(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)
        for shard in (1, 2):
            client.command(f"ALTER TABLE {TABLE} DROP PARTITION {shard}")
        one = BackfillRequest(TABLE, shards="1", run_id="backfill_one")
        other = BackfillRequest(TABLE, run_id="backfill_other")

        claim_shards(client, one, plan_backfill(client, one))

        assert found(client, one) == {1: ("explicit", "load")}
        assert found(client, other) == {1: ("missing", "wait"), 2: ("missing", "wait")}
        assert why(client, 2, other).startswith("run backfill_one is at work on this table (run ")
        assert ingest_conf(client, other, plan_backfill(client, other)) is None

    def test_a_table_that_was_dropped(self, client: Client, load: Load) -> None:
        load(*SHARDS)

        client.command(f"DROP TABLE {TABLE} SYNC")

        assert found(client) == dict.fromkeys(SHARDS, ("missing", "load"))

    def test_a_failure_that_may_be_tried_again_is_waited_for(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(0)
        ledger.append([event(1, "plan", "planned", "")])
        ledger.append([event(1, "download", "failed", "bbbb0002")])

        assert found(client) == {1: ("failed", "wait")}
        ledger.record_end(ORIGIN, table=TABLE, planned=1, missing=1)
        assert found(client) == {1: ("failed", "load")}

    def test_a_foreign_table_is_refused(self, client: Client, ledger: Ledger) -> None:
        client.command("CREATE TABLE theirs (id Int64) ENGINE = MergeTree ORDER BY id")

        with pytest.raises(TableMismatch, match="was not made by this package"):
            plan_backfill(client, BackfillRequest("theirs"))


class TestRequest:
    def test_only_shards_with_the_reason_asked_for_are_named(
        self, client: Client, ledger: Ledger, load: Load
    ) -> None:
        load(*SHARDS)
        client.command(f"ALTER TABLE {TABLE} DROP PARTITION 0")
        ledger.append([event(1, "download", "failed", "bbbb0002")])
        ledger.record_end(ORIGIN, table=TABLE, planned=1, missing=1)

        assert list(found(client)) == [0, 1]
        assert list(found(client, BackfillRequest(TABLE, "missing"))) == [0]
        assert list(found(client, BackfillRequest(TABLE, "failed"))) == [1]
        assert list(found(client, BackfillRequest(TABLE, "mismatched"))) == []

    def test_missing_alone_counts_what_the_manifest_has_and_nobody_asked_for(
        self, client: Client, ledger: Ledger
    ) -> None:
        ledger.append([event(0, "plan", "planned", "")])
        run = {"table": TABLE, "source": "", "shards": "0", "params": PARAMS}
        ledger.record_run(ORIGIN, dataset="laion400m", **run)
        ledger.record_end(ORIGIN, table=TABLE, planned=1, missing=1)

        assert len(found(client, BackfillRequest(TABLE, "missing"))) == 410
        assert list(found(client)) == [0]

    def test_shards_by_number_are_loaded_whatever_their_state(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)

        repairs = plan_backfill(client, BackfillRequest(TABLE, shards="1, 7-8"))

        assert [(r.shard, r.reason, r.action) for r in repairs] == [
            (1, "explicit", "load"),
            (7, "explicit", "load"),
            (8, "explicit", "load"),
        ]

    def test_more_than_the_cap_is_left_for_later(self, client: Client, load: Load) -> None:
        load(*SHARDS)
        client.command(f"DROP TABLE {TABLE} SYNC")

        repairs = plan_backfill(client, BackfillRequest(TABLE, max_shards=2))

        assert [r.action for r in repairs] == ["load", "load", "later"]
        assert shards_to_load(repairs) == "0-1"

    def test_a_reason_that_does_not_exist_is_refused(self, client: Client, ledger: Ledger) -> None:
        with pytest.raises(BadRequest, match="'broken' is none of failed, missing"):
            plan_backfill(client, BackfillRequest(TABLE, "broken"))


class TestConf:
    def test_it_repeats_the_last_run_with_only_these_shards(
        self, client: Client, load: Load
    ) -> None:
        load(*SHARDS)
        request = BackfillRequest(TABLE, shards="1,2")

        assert ingest_conf(client, request, plan_backfill(client, request)) == {
            "dataset": "little",
            "table": TABLE,
            "source": "https://mirror.example/little",
            "shards": "1-2",
            "index_metric": "L2Distance",
            "tolerate_failed_shards": 0,
        }

    def test_a_table_that_no_run_has_loaded_cannot_be_repeated(
        self, client: Client, ledger: Ledger
    ) -> None:
        request = BackfillRequest(TABLE, shards="1")

        with pytest.raises(NeverLoaded, match="trigger laion_ingest with the shards"):
            ingest_conf(client, request, plan_backfill(client, request))

    def test_a_password_that_was_not_kept_is_asked_for(
        self, client: Client, ledger: Ledger
    ) -> None:
        run = {"table": TABLE, "dataset": "little", "shards": "0", "params": PARAMS}
        ledger.record_run(ORIGIN, source="https://***@mirror.example", **run)
        request = BackfillRequest(TABLE, shards="0")

        with pytest.raises(BadRequest, match="Give the param `source` again"):
            ingest_conf(client, request, plan_backfill(client, request))
        given = BackfillRequest(TABLE, shards="0", source="https://me:pw@mirror.example")
        conf = ingest_conf(client, given, plan_backfill(client, given))
        assert conf is not None
        assert conf["source"] == "https://me:pw@mirror.example"


def test_the_plan_as_text(client: Client, load: Load) -> None:
    load(*SHARDS)
    client.command(f"ALTER TABLE {TABLE} DROP PARTITION 1")

    text = format_plan(ALL, plan_backfill(client, ALL))

    assert text.splitlines()[0].split() == ["shard", "reason", "do", "expected", "held", "why"]
    assert text.splitlines()[1].startswith("shard 00001  missing    load           60           0")
    assert text.splitlines()[-1] == "little: 1 load."
    assert format_plan(ALL, []) == "little: nothing to repair (all)."
