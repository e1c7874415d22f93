#!/usr/bin/env python3
"""Health check of a container: exit with 0 if Airflow reports one of its parts as healthy.

usage: laion-health URL PART, where PART is metadatabase, scheduler, dag_processor or triggerer

Airflow's own `airflow jobs check` needs four CPU seconds a time; this asks the API server.
"""

import json
import sys
import urllib.request

TIMEOUT_S = 8


def main(url: str, part: str) -> int:
    with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=TIMEOUT_S) as answer:
        status = json.load(answer)[part]["status"]
    print(f"{part}: {status}")
    return 0 if status == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
