#!/usr/bin/env python3
"""Health check of a container: exit with 0 if one part of Airflow is healthy.

usage: laion-health URL PART, where PART is metadatabase, scheduler, dag_processor or triggerer, of
which the API server at URL knows, or worker, which is asked through the broker whether it listens

Airflow's own checks, such as `airflow jobs check`, take four CPU seconds a time.
"""

import json
import os
import socket
import sys
import urllib.request

TIMEOUT_S = 8


def main(url: str, part: str) -> int:
    status = ask_worker() if part == "worker" else ask_airflow(url, part)
    print(f"{part}: {status}")
    return 0 if status == "healthy" else 1


def ask_airflow(url: str, part: str) -> str:
    with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=TIMEOUT_S) as answer:
        return json.load(answer)[part]["status"]


def ask_worker() -> str:
    from celery import Celery

    name = os.environ.get("LAION_WORKER_NAME", f"celery@{socket.gethostname()}")
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    answers = app.control.ping(destination=[name], timeout=TIMEOUT_S)
    return "healthy" if answers else f"{name} does not answer"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
