"""An Airflow of its own for these tests, with the project's DAGs."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

DAGS = Path(__file__).parents[2] / "dags"


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    return DagBag(DAGS, bundle_path=DAGS)


@pytest.fixture(scope="session")
def laion_ingest(dag_bag: DagBag) -> DAG:
    return dag_bag.dags["laion_ingest"]
