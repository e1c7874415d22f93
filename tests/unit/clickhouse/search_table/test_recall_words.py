"""Queries by words, on a server of their own: functions are the server's, not a database's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import TaskOrigin
from tests.embedded_server import EmbeddedServer
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import build_search, make_tables, publish_files

KINDS = "SELECT DISTINCT kind FROM recall_history WHERE build_id = {b:String} ORDER BY kind"
SECOND_RUN = TaskOrigin("laion_ingest", "run_2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def loaded(server: EmbeddedServer, tmp_path: Path) -> Iterator[Client]:
    """A base table of one shard, whose search table was built before encode_text was there."""
    with server.client(autogenerate_session_id=False) as client:
        client.command("CREATE DATABASE words")
        client.database = "words"
        source = tmp_path / "source"
        source.mkdir()
        make_tables(client)
        write_little_shard(source, 0, 300)
        publish_files(client, source, 0, tmp_path)
        build_search(client)
        yield client
        client.command("DROP FUNCTION IF EXISTS encode_text")
        client.command("DROP DATABASE words SYNC")


def stand_in(client: Client, dimension: int) -> None:
    """Create an encode_text whose vectors differ by text; they need no meaning here."""
    client.command(
        f"CREATE FUNCTION encode_text AS text -> arrayMap(i -> toFloat32("
        f"cityHash64(text, i) % 1000 / 1000 - 0.5), range({dimension}))"
    )


def kinds_measured(client: Client, build_id: str) -> list[str]:
    return [kind for (kind,) in client.query(KINDS, parameters={"b": build_id}).result_rows]


def test_words_are_measured_once_there_is_an_encoder(loaded: Client) -> None:
    before = loaded.query("SELECT column, number, vector FROM recall_queries").result_rows
    stand_in(loaded, DIMENSION)

    plan = build_search(loaded, origin=SECOND_RUN)

    assert kinds_measured(loaded, plan.build_id) == ["cross", "near", "words"]
    after = loaded.query("SELECT column, number, vector FROM recall_queries").result_rows
    assert all(row in after for row in before)
    assert len({row[:2] for row in after}) == len(after) > len(before)


def test_an_encoder_of_another_model_is_left_out(loaded: Client) -> None:
    stand_in(loaded, DIMENSION + 1)

    plan = build_search(loaded, origin=SECOND_RUN)

    assert kinds_measured(loaded, plan.build_id) == ["cross", "near"]


def test_an_encoder_that_fails_costs_no_build(
    loaded: Client, caplog: pytest.LogCaptureFixture
) -> None:
    loaded.command("CREATE FUNCTION encode_text AS text -> [toFloat32(throwIf(text != '', 'no'))]")

    plan = build_search(loaded, origin=SECOND_RUN)

    assert kinds_measured(loaded, plan.build_id) == ["cross", "near"]
    assert "measured without words" in caplog.text
