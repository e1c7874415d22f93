"""The statements and the Python in docs/search.md run as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import OFFERS, kind_of
from laion.clickhouse.search_table.plan import IndexOptions
from tests.embedded_server import EmbeddedServer
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import build_search, make_tables, publish_files

PAGE = Path(__file__).parents[4] / "docs" / "search.md"
STATEMENTS = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module", params=OFFERS)
def sample(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A table of that name, searched by each kind, and a stand-in for the deployed encode_text."""
    directory = tmp_path_factory.mktemp("source")
    # A server of its own: others may have deployed the real encode_text.
    server = EmbeddedServer(tmp_path_factory.mktemp("server"))
    with server, server.client(autogenerate_session_id=False) as client:
        make_tables(client, "sample")
        write_little_shard(directory, 0, 200)
        publish_files(client, directory, 0, directory, table="sample")
        options = IndexOptions(kind=request.param, quantization="auto", min_bucket_rows=1)
        build_search(client, options, table="sample")
        vector = [1.0] + [0.0] * (DIMENSION - 1)
        client.command(f"CREATE FUNCTION encode_text AS text -> {vector}")
        yield client
        client.command("DROP FUNCTION encode_text")


def test_there_are_statements() -> None:
    assert len(STATEMENTS) >= 7


@pytest.mark.parametrize("sql", [s for s in STATEMENTS if "sample_search" not in s])
def test_it_gives_rows(sample: Client, sql: str) -> None:
    plan = read_in_use(sample, "sample")
    assert plan is not None
    # Where every row is compared, there is nothing to measure.
    is_empty = "recall_history" in sql and kind_of(plan.options).is_live
    assert bool(sample.query(sql).result_rows) != is_empty


@pytest.mark.parametrize("sql", [s for s in STATEMENTS if "sample_search" in s])
@pytest.mark.parametrize("sample", ["hnsw"], indirect=True)
def test_it_uses_the_index(sample: Client, sql: str) -> None:
    assert sample.query(sql).result_rows
    plan = sample.query(f"EXPLAIN indexes = 1 {sql}").result_rows

    assert "vector_similarity" in "\n".join(row[0] for row in plan)


def test_the_program_prints_hits(sample: Client, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PROGRAM, {"client": sample})

    printed = capsys.readouterr().out
    assert printed.count("https://") >= 20
    assert float(printed.split()[-1]) > 0
