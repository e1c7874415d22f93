"""docker-compose.yaml and the files around it, as tests read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
COMPOSE_TEXT = (PROJECT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
LOCAL: dict[str, Any] = yaml.safe_load((PROJECT / "compose.local.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = {n: s for n, s in SERVICES.items() if s["restart"] == "unless-stopped"}
ONE_SHOT = SERVICES.keys() - LONG_RUNNING.keys()
ENVIRONMENTS = {name: service.get("environment", {}) for name, service in SERVICES.items()}
AIRFLOW_ENVIRONMENT = ENVIRONMENTS["airflow-scheduler"]

AIRFLOW_DOCKER = PROJECT / "docker" / "airflow"
DOCKERFILE = (AIRFLOW_DOCKER / "Dockerfile").read_text()
DOCS = (PROJECT / "docs" / "docker.md").read_text()

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[?-])(?P<rest>[^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|CONN")
NO_SECRETS = ("PASSWORDS_FILE", "CONN_ID", "ACCESS_KEY")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+)", re.MULTILINE)
LOCALHOST = "127.0.0.1"


def variables() -> list[dict[str, str]]:
    return [match.groupdict() for match in VARIABLE.finditer(COMPOSE_TEXT)]


def pins(lock: Path) -> dict[str, str]:
    return dict(PIN.findall(lock.read_text()))
