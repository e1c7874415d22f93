"""The few calls of Airflow's REST API that the demo makes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import requests

from laion.errors import AirflowRefused

TIMEOUT_S = 30
FINAL_STATES = frozenset({"success", "failed"})


@dataclass
class AirflowApi:
    """A logged-in client of `/api/v2`. Every method raises AirflowRefused with Airflow's reason."""

    url: str
    user: str
    password: str
    _session: requests.Session = field(default_factory=requests.Session)

    def log_in(self) -> None:
        """Fetch a token; call it once before anything else."""
        answer = self._session.post(
            f"{self.url}/auth/token",
            json={"username": self.user, "password": self.password},
            timeout=TIMEOUT_S,
        )
        token = _checked(answer)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def health(self) -> dict[str, dict[str, Any]]:
        """Return the state of Airflow's parts by name; needs no token."""
        url = f"{self.url}/api/v2/monitor/health"
        return dict(_checked(self._session.get(url, timeout=TIMEOUT_S)))

    def get(self, path: str, **query: Any) -> Any:
        """Return what `GET /api/v2/<path>` answers."""
        return _checked(
            self._session.get(f"{self.url}/api/v2/{path}", params=query, timeout=TIMEOUT_S)
        )

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return what `POST /api/v2/<path>` answers."""
        return _checked(
            self._session.post(f"{self.url}/api/v2/{path}", json=body, timeout=TIMEOUT_S)
        )

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run and return its id."""
        body = {"conf": conf, "logical_date": None}
        return str(self.post(f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success, failed."""
        return str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def wait_for_run(self, dag_id: str, run_id: str, timeout_s: float) -> str:
        """Wait for a run to end and return its state; after `timeout_s` the state it is in."""
        deadline = time.monotonic() + timeout_s
        while (state := self.run_state(dag_id, run_id)) not in FINAL_STATES:
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        return state

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return every task instance of a run."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(path, limit=100, offset=len(found))
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def clear(self, dag_id: str, body: dict[str, Any]) -> None:
        """Clear task instances, so that they run again."""
        self.post(f"dags/{dag_id}/clearTaskInstances", {"dry_run": False, **body})


def _checked(answer: requests.Response) -> Any:
    if answer.ok:
        return answer.json()
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError):
        detail = answer.text[:500]
    raise AirflowRefused(f"Airflow answers HTTP {answer.status_code}: {detail}")
