"""How far a download is, in the ledger."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.download import Progress
from laion.orchestration.shard_tasks import _record_progress
from tests.unit.clickhouse.shard_steps import event, make_tables


def test_bytes_that_are_here_are_in_the_ledger_while_the_download_runs(client: Client) -> None:
    ledger, start = make_tables(client), event(7, "download", "started")
    progress = Progress(
        "shard 00007", lambda size: _record_progress(ledger, start, size), interval_s=0
    )
    progress.set_file("a.npy", 100, 1000)

    progress.add("a.npy", 400)
    progress.add("a.npy", 500)

    rows = client.query("SELECT stage, state, bytes FROM shard_ledger ORDER BY bytes").result_rows
    assert rows == [("download", "started", 500), ("download", "started", 1000)]


def test_a_ledger_that_does_not_answer_costs_no_download(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = make_tables(client)
    client.command("DROP TABLE shard_ledger SYNC")

    _record_progress(ledger, event(7, "download", "started"), 500)

    assert "The progress is not in the ledger" in caplog.text
