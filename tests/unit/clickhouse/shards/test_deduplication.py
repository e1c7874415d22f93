"""Rows that are equal to earlier ones stay, also where the server drops blocks that it has seen.

Replicated tables do so by default; a MergeTree does with a window of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.client import insert_rows
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import LEDGER
from laion.clickhouse.search_table.build import begin_build
from laion.clickhouse.search_table.lease import Builds, Holder
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    OPTIONS,
    ORIGIN,
    TABLE,
    build_search,
    event,
    make_tables,
    publish_files,
)

TABLES = ["schema_version", *(name.removeprefix("create_") for name in LEDGER)]


@pytest.fixture
def deduplicating(client: Client) -> Client:
    """A database whose ledger drops an INSERT that is equal to one of the last hundred."""
    make_tables(client)
    for table in TABLES:
        client.command(
            f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 100"
        )
    return client


def test_the_server_does_drop_equal_inserts(deduplicating: Client) -> None:
    for _ in range(4):
        deduplicating.command("INSERT INTO run_ends (run_id, at) VALUES ('run_1', 1)")

    assert deduplicating.command("SELECT count() FROM run_ends") == 1


@pytest.mark.parametrize("table", TABLES)
def test_equal_rows_of_the_ledger_are_separate_events(deduplicating: Client, table: str) -> None:
    before = int(deduplicating.command(f"SELECT count() FROM {table}"))
    time = {"at": "2026-01-01 00:00:00.000000"}

    for _ in range(3):
        insert_rows(deduplicating, table, [time])

    assert deduplicating.command(f"SELECT count() FROM {table}") == before + 3


def test_a_run_whose_gate_looks_again_at_the_same_ends_again(deduplicating: Client) -> None:
    ledger = Ledger(deduplicating)

    for _ in range(2):
        ledger.record_end(ORIGIN, table=TABLE, planned=1, missing=0)

    assert deduplicating.command("SELECT count() FROM run_ends") == 2


def test_a_lease_that_is_renewed_does_not_lapse(
    deduplicating: Client, shard_directory: Path, tmp_path: Path
) -> None:
    write_little_shard(shard_directory)
    publish_files(deduplicating, shard_directory, 0, tmp_path)
    builds = Builds(deduplicating, TABLE, ORIGIN)
    begun = begin_build(builds, OPTIONS)
    assert not isinstance(begun, Holder)

    for _ in range(3):
        builds.append(begun[0].build_id, "alive")

    alive = "SELECT count() FROM search_builds WHERE state = 'alive'"
    assert deduplicating.command(alive) == 3


def test_a_whole_run_leaves_every_event(
    deduplicating: Client, shard_directory: Path, tmp_path: Path
) -> None:
    write_little_shard(shard_directory)
    ledger = Ledger(deduplicating)
    for _ in range(2):
        ledger.append([event(0, "plan", "planned", "")])
    publish_files(deduplicating, shard_directory, 0, tmp_path)
    build_search(deduplicating)

    assert deduplicating.command("SELECT count() FROM shard_ledger WHERE stage = 'plan'") == 2
    assert deduplicating.command("SELECT count() FROM recall_history") > 0
