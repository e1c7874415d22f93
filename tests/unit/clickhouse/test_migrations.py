"""Tables of the first structure (`schema_1.sql`) are brought up to date and go on being used."""

from __future__ import annotations

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse import schema
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import LEDGER, SCHEMA_VERSION, ensure_ledger
from laion.clickhouse.statements import statement
from laion.errors import SchemaTooNew
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    build_search,
    event,
    make_tables,
    publish_files,
)

OLD = (Path(__file__).parent / "schema_1.sql").read_text()
TABLES = ["shard_status", *(name.removeprefix("create_") for name in LEDGER)]


def structure(client: Client) -> dict[str, list[tuple[str, str]]]:
    return {table: client.query(f"DESCRIBE TABLE {table}").result_rows for table in sorted(TABLES)}


@pytest.fixture
def old(client: Client) -> Client:
    """A database whose ledger tells of a shard that an early release has published."""
    for text in OLD.split("\n;\n"):
        if text.strip():
            client.command(text)
    client.insert(
        "shard_ledger",
        [
            [TABLE, 7, "little", "aaaa0001", stage, number, state, 3, 99, ORIGIN.run_id]
            for stage, number, state in (("download", 1, "started"), ("publish", 5, "done"))
        ],
        column_names=[
            "table",
            "shard",
            "dataset",
            "attempt",
            "stage",
            "stage_number",
            "state",
            "rows_loaded",
            "hash",
            "run_id",
        ],
    )
    return client


def test_old_tables_become_as_new_ones_and_keep_what_they_hold(
    old: Client, fresh_database: object
) -> None:
    ensure_ledger(old)

    assert old.command("SELECT max(version) FROM schema_version") == SCHEMA_VERSION
    assert Ledger(old).publication(TABLE, 7, "aaaa0001") == (3, 99)
    assert Ledger(old).published_shards(TABLE) == [7]
    with fresh_database() as new:  # type: ignore[operator]
        ensure_ledger(new)
        for table, columns in structure(new).items():
            assert [c[:2] for c in structure(old)[table]] == [c[:2] for c in columns], table


def test_old_tables_take_a_load_and_a_search_table(
    old: Client, shard_directory: Path, tmp_path: Path
) -> None:
    make_tables(old).append([event(0, "plan", "planned", "")])
    write_little_shard(shard_directory, 0)

    publish_files(old, shard_directory, 0, tmp_path)
    build_search(old)

    assert Ledger(old).published_shards(TABLE) == [0, 7]
    assert old.command(f"SELECT count() FROM {TABLE}_search") > 0


def test_an_earlier_release_can_go_on_with_new_tables(client: Client) -> None:
    """Only columns are added: its INSERTs, which name columns, and its view still work."""
    ensure_ledger(client)

    view = next(text for text in OLD.split("\n;\n") if "VIEW shard_status" in text)
    client.command(view)

    assert client.command("SELECT count() FROM shard_status") == 0


def test_migrations_are_run_once(old: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_ledger(old)
    asked: list[str] = []

    def note(name: str, **more: object) -> str:
        asked.append(name)
        return statement(name, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(schema, "statement", note)
    ensure_ledger(old)

    assert "create_shard_ledger" in asked
    assert not [name for name in asked if name.startswith("add_")]
    assert old.command("SELECT count() FROM schema_version") == 1


def test_tables_of_a_newer_release_are_left_alone(client: Client) -> None:
    ensure_ledger(client)
    client.command(f"INSERT INTO schema_version (version) VALUES ({SCHEMA_VERSION + 1})")

    with pytest.raises(SchemaTooNew, match="Upgrade the package on every worker"):
        ensure_ledger(client)
