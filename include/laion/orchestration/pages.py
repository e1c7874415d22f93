"""The pages in Airflow: who may see them, which ClickHouse they read, what Airflow knows.

Imported by Airflow's API server only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from fastapi import FastAPI
from sqlalchemy import select

from laion.clickhouse.client import Client
from laion.errors import ClickHouseAuthFailed, ClickHouseUnreachable
from laion.orchestration.alerts import missing_connection
from laion.orchestration.connections import connect
from laion.settings import Settings, get_settings
from laion.urls import hide_credentials
from laion.web.app import DAG_ID, Backend, create_app

CLIENT_AGE_S = 300
"""How long a change of the Airflow connection may go unnoticed."""
MAX_RESULT_ROWS = 100_000


def create_pages() -> FastAPI:
    """Return the application that the plugin mounts."""
    clients = _SharedClient()
    return create_app(
        Backend(
            clickhouse=clients.lend,
            # The DAG is named here, not by the caller: access to another DAG does not help.
            may_read=requires_access_dag(method="GET", param_dag_id=DAG_ID),
            may_trigger=_may_trigger,
            active_runs=_active_runs,
            source_urls=_source_urls,
            alerts_warning=missing_connection,
            models_dir=get_settings().models_dir,
            pictures_mirror=get_settings().pictures_mirror,
        )
    )


class _SharedClient:
    """One client for all requests, because connecting takes longer than most queries here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._made_at = 0.0

    @contextmanager
    def lend(self) -> Iterator[Client]:
        client = self._current()
        try:
            yield client
        except (ClickHouseUnreachable, ClickHouseAuthFailed):
            with self._lock:
                if self._client is client:
                    self._client = None
            raise

    def _current(self) -> Client:
        with self._lock:
            age = time.monotonic() - self._made_at
            if self._client is None or age > CLIENT_AGE_S:
                # The previous one is not closed: other requests may be using it.
                settings = get_settings()
                conn_id = settings.pages_conn_id or settings.clickhouse_conn_id
                self._client = connect(conn_id, _limits(settings))
                self._made_at = time.monotonic()
            return self._client


def _limits(settings: Settings) -> dict[str, float]:
    return {
        # Reads and nothing else, whatever the connection's user may do.
        "readonly": 2,
        "max_execution_time": settings.pages_timeout_s,
        "max_memory_usage": int(settings.pages_memory),
        "max_result_rows": MAX_RESULT_ROWS,
    }


def _may_trigger(user: GetUserDep) -> bool:
    return get_auth_manager().is_authorized_dag(
        method="POST",
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=DAG_ID, team_name=DagModel.get_team_name(DAG_ID)),
        user=user,
    )


def _active_runs() -> Collection[str]:
    states = (DagRunState.QUEUED, DagRunState.RUNNING)
    query = select(DagRun.run_id).where(DagRun.dag_id == DAG_ID, DagRun.state.in_(states))
    with create_session() as session:
        return frozenset(session.scalars(query))


def _source_urls(dag_id: str, run_id: str, shard: int) -> Mapping[str, str]:
    """Return where a run looks first for the files of a shard; nothing when its plan is gone."""
    with create_session() as session:
        query = XComModel.get_many(
            run_id=run_id, key="return_value", dag_ids=dag_id, task_ids="plan", limit=1
        )
        found = session.scalars(query).first()
        specs = XComModel.deserialize_value(found) if found else []
    urls: dict[str, list[str]]
    urls = next((spec["urls"] for spec in specs if spec["shard"] == shard), {})
    return {role: hide_credentials(mirrors[0]) for role, mirrors in urls.items()}
