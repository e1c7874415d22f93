"""The application on a real ClickHouse, with an Airflow that a test can make say anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from clickhouse_connect.driver.client import Client
from fastapi import HTTPException
from fastapi.testclient import TestClient

from laion.clickhouse.ledger import Ledger
from laion.web.app import Backend, create_app
from tests.unit.clickhouse.shard_steps import make_tables


@dataclass
class Airflow:
    """What the pages ask Airflow."""

    user: str | None = "admin"
    active_runs: set[str] = field(default_factory=set)
    urls: dict[str, str] = field(default_factory=dict)
    alerts_warning: str | None = None

    def may_read(self) -> None:
        if self.user is None:
            raise HTTPException(401, "Not authenticated")
        if self.user == "stranger":
            raise HTTPException(403, "Forbidden")

    def may_trigger(self) -> bool:
        return self.user == "admin"


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def ledger(client: Client) -> Ledger:
    return make_tables(client)


@pytest.fixture
def pages(client: Client, airflow: Airflow) -> Iterator[TestClient]:
    """A browser at the application, whose ClickHouse is the test's database."""

    @contextmanager
    def lend() -> Iterator[Client]:
        yield client

    backend = Backend(
        clickhouse=lend,
        may_read=airflow.may_read,
        may_trigger=airflow.may_trigger,
        active_runs=lambda: airflow.active_runs,
        source_urls=lambda dag_id, run_id, shard: airflow.urls,
        alerts_warning=lambda: airflow.alerts_warning,
    )
    with TestClient(create_app(backend), raise_server_exceptions=False) as browser:
        yield browser
