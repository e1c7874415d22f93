"""Which places of the staging area are freed while no task's end frees them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from clickhouse_connect.driver.client import Client

from laion.orchestration.leftovers import UNKNOWN_FOR_S, free_places
from laion.storage.directory import DirectoryArea
from tests.unit.clickhouse.shard_steps import make_tables

TABLE = "little"


def test_a_place_the_ledger_never_heard_of_is_freed_but_not_at_once(
    client: Client, tmp_path: Path
) -> None:
    ledger, area = make_tables(client), DirectoryArea(tmp_path, capacity=3)
    for shard, attempt in ((1, "aaaa0001"), (2, "aaaa0002")):
        assert area.claim(TABLE, shard, attempt)
    killed = area.directory(TABLE, 1, "aaaa0001")
    long_ago = time.time() - UNKNOWN_FOR_S - 1
    os.utime(killed, (long_ago, long_ago))

    assert free_places(ledger, area) == [f"{killed}: the ledger does not know it"]

    assert area.attempts() == [(TABLE, 2, "aaaa0002")]
