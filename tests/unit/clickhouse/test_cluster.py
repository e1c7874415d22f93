"""On a cluster: every statement is written for it, and parsed by the engine. No cluster is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.derived import drop_derived
from laion.clickhouse.schema import ensure_ledger
from laion.errors import UnknownCluster
from laion.settings import get_settings
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    TaskOrigin,
    build_search,
    event,
    make_tables,
    publish_files,
)

CLUSTER = "replicas"
MADE_ON_ALL = re.compile(r"^(CREATE|DROP|RENAME|EXCHANGE|ALTER TABLE \S+ .*MODIFY SETTING)", re.S)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Changes environment variables that this package's settings are read from."""
    get_settings.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture
def told(client: Client, settings: pytest.MonkeyPatch) -> list[str]:
    """Statements for a cluster as they are sent; run without what only a cluster can run."""
    sent: list[str] = []
    command = client.command

    def run_on_one_server(text: str, *args: Any, **more: Any) -> Any:
        sent.append(text)
        if "SYSTEM SYNC REPLICA" in text or "ENGINE = Distributed" in text:
            return None
        text = text.replace(f"ON CLUSTER `{CLUSTER}`", "")
        return command(text.replace("ReplicatedMergeTree", "MergeTree"), *args, **more)

    settings.setattr(client, "command", run_on_one_server)
    settings.setattr("laion.clickhouse.schema.check_cluster", lambda client: None)
    settings.setenv("LAION_CLICKHOUSE_CLUSTER", CLUSTER)
    settings.setenv("LAION_CLICKHOUSE_SHARDS_CLUSTER", "everything")
    return sent


def without_comments(text: str) -> str:
    return re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip()


def test_a_load_and_a_search_table_are_written_for_the_cluster(
    client: Client, told: list[str], shard_directory: Path, tmp_path: Path
) -> None:
    ledger = make_tables(client)
    for attempt, run in (("aaaa0001", ORIGIN), ("aaaa0002", TaskOrigin("laion_ingest", "run_2"))):
        write_little_shard(shard_directory, 0)
        ledger.append([event(0, "plan", "planned", "", run_id=run.run_id)])
        staged = publish_files(client, shard_directory, 0, tmp_path, attempt=attempt)
        drop_derived(client, staged.staging_table)
        build_search(client, origin=run)

    statements = [without_comments(text) for text in told]
    for text in statements:
        parsed = client.query("SELECT formatQuery({q:String})", parameters={"q": text})
        assert parsed.result_rows, text
        if MADE_ON_ALL.match(text):
            assert f"ON CLUSTER `{CLUSTER}`" in text, text
        if text.startswith("CREATE TABLE"):
            assert re.search(r"ENGINE = (ReplicatedMergeTree|Distributed\(`everything`)", text)
    kinds = {re.split(r"\s+", text)[0] for text in statements}
    assert {"CREATE", "DROP", "RENAME", "EXCHANGE", "ALTER", "SYSTEM"} <= kinds
    made = [text for text in statements if "ENGINE = Distributed" in text]
    assert {re.split(r"\s+", text)[5] for text in made} == {
        f"`{TABLE}_all`",
        f"`{TABLE}_search_all`",
    }
    replace = next(n for n, text in enumerate(statements) if "REPLACE PARTITION" in text)
    assert f"SYSTEM SYNC REPLICA `{TABLE}_staging_0_aaaa0001`" in statements[:replace]


def test_on_one_server_nothing_is_said_of_clusters(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    command = client.command
    monkeypatch.setattr(
        client, "command", lambda text, *a, **m: (sent.append(text), command(text, *a, **m))[1]
    )

    make_tables(client)

    assert len(sent) > 10
    assert not [text for text in sent if re.search("CLUSTER|Replicated|Distributed", text)]


@pytest.mark.parametrize("variable", ["CLUSTER", "SHARDS_CLUSTER"])
def test_a_cluster_that_the_server_does_not_know_is_named_beside_those_that_it_knows(
    client: Client, settings: pytest.MonkeyPatch, variable: str
) -> None:
    settings.setenv(f"LAION_CLICKHOUSE_{variable}", "atlantis")

    with pytest.raises(UnknownCluster, match=f"{variable} is 'atlantis', and .* knows "):
        ensure_ledger(client)

    assert client.command("EXISTS TABLE shard_ledger") == 0
