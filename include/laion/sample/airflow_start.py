"""How far Airflow is with starting, as it is seen from outside."""

from __future__ import annotations

import json
from pathlib import Path

import requests

from laion.errors import AirflowRefused, ProcessFailed
from laion.sample.airflow_api import AirflowApi
from laion.sample.family import children, lost_children
from laion.sample.processes import Process
from laion.sample.waiting import failure

DAG_ID = "laion_ingest"
USER = "admin"
STAGES = {
    "metadatabase": "Airflow: waiting for its database",
    "scheduler": "Airflow: waiting for its scheduler",
    "dag_processor": "Airflow: waiting for its DAG processor",
}
"""What is waited for while a part is not healthy, in this order."""


def read_password(home: Path) -> str:
    """Return the password that Airflow has made for USER in its home directory."""
    generated = home / "simple_auth_manager_passwords.json.generated"
    return str(json.loads(generated.read_text())[USER])


def stage_of_standalone(airflow: Process, url: str, home: Path) -> str | None:
    """Return what `airflow standalone` is at, or None when it is ready.

    Raises ProcessFailed when one of its parts has ended: it starts none of them again.
    """
    parts = children(airflow.pid)
    if not parts:
        return "Airflow: migrating its database"
    if any(part.has_ended for part in parts) and lost_children(airflow.pid):
        raise failure("a part of Airflow has ended while starting", airflow)
    return stage_of_airflow(url, home)


def stage_of_airflow(url: str, home: Path) -> str | None:
    """Return what Airflow is at, or None when its parts are healthy and the DAGs have been read.

    Raises ProcessFailed when they cannot be read.
    """
    try:
        api = AirflowApi(url, USER, read_password(home))
        health = api.health()
        for part, stage in STAGES.items():
            if health[part]["status"] != "healthy":
                return stage
        api.log_in()
        return _stage_of_dags(api)
    except (requests.RequestException, AirflowRefused, KeyError, ValueError, FileNotFoundError):
        return "Airflow: starting its API server"


def _stage_of_dags(api: AirflowApi) -> str | None:
    try:
        api.get(f"dags/{DAG_ID}")
    except AirflowRefused:
        for error in api.get("importErrors")["import_errors"]:
            # A busy machine may take longer than Airflow gives a file, which is then read again.
            if DAG_ID in error["filename"] and "Timeout" not in error["stack_trace"]:
                raise ProcessFailed(_cannot_read(error)) from None
        return "Airflow: reading the DAGs"
    return None


def _cannot_read(error: dict[str, str]) -> str:
    return f"Airflow cannot read {error['filename']}:\n{error['stack_trace'].strip()}"
