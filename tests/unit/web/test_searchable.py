"""Which tables the page *Search* offers."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import Ledger
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.plan import IndexOptions
from laion.web.search import Searchable, read_searchable
from tests.unit.clickhouse.shard_steps import ORIGIN, TABLE, build_search
from tests.unit.conftest import Load

VECTORS = ["image_embedding", "text_embedding"]


@pytest.fixture
def loaded(client: Client, ledger: Ledger, load: Load) -> Client:
    load(0)
    ledger.record_run(ORIGIN, table=TABLE, dataset="little", source="", shards="0", params={})
    return client


def test_a_table_without_a_search_table_is_not_offered(loaded: Client) -> None:
    assert read_searchable(loaded) == []


@pytest.mark.parametrize("kind", OFFERS)
def test_a_search_table_of_any_kind_is_offered(loaded: Client, kind: str) -> None:
    build_search(loaded, IndexOptions(kind=kind, quantization="auto"))

    assert read_searchable(loaded) == [Searchable(TABLE, "little", VECTORS)]


def test_a_view_of_somebody_else_hides_no_search_table(loaded: Client) -> None:
    build_search(loaded)
    loaded.command(f"DROP VIEW {TABLE}_near")
    loaded.command(f"CREATE VIEW {TABLE}_near AS SELECT 1 COMMENT 'not a search'")

    assert read_searchable(loaded) == [Searchable(TABLE, "little", VECTORS)]
