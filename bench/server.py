"""An embedded ClickHouse of its own for a benchmark."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect

from laion.clickhouse.client import Client
from laion.sample.processes import free_port, start
from laion.sample.waiting import wait_until


@dataclass(frozen=True)
class BenchServer:
    """Where it serves, on 127.0.0.1, and the process whose CPU and memory are its own."""

    port: int
    pid: int

    def client(self) -> Client:
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.port, autogenerate_session_id=False
        )


@contextmanager
def running_server(work: Path) -> Iterator[BenchServer]:
    """Start it below `work`, and stop it at the end of the block."""
    port = free_port()
    process = start(
        "clickhouse",
        [sys.executable, "-m", "laion.embedded", f"--path={work / 'server'}", f"--port={port}"],
        work / "server.log",
        {**os.environ, "CLICKHOUSE_PASSWORD": ""},
    )
    try:
        wait_until(process, lambda: "ready" in process.log.read_text())
        yield BenchServer(port, process.pid)
    finally:
        process.stop()
