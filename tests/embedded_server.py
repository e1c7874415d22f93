"""A running embedded ClickHouse, for tests of anything that talks to one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver import Client

INCLUDE = Path(__file__).parents[1] / "include"
STOP_TIMEOUT_S = 60
POLL_TIMEOUT_S = 60


class EmbeddedServer:
    """The real process, started on a free port of 127.0.0.1.

    A context manager; can be started again after `stop` or `kill`, on the same path.
    """

    host = "127.0.0.1"
    user = "default"

    def __init__(self, path: Path, password: str = "secret") -> None:
        self.path = path
        self.password = password
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it serves, such as ``http://127.0.0.1:41234``."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process that holds the engine."""
        assert self._process is not None
        return self._process.pid

    @property
    def airflow_connection(self) -> dict[str, Any]:
        """What belongs, as JSON, into ``AIRFLOW_CONN_CLICKHOUSE_DEFAULT``."""
        return {
            "conn_type": "clickhouse",
            "host": self.host,
            "port": self.port,
            "login": self.user,
            "password": self.password,
        }

    def restrict(self, grants: Iterable[str], profile: str = "") -> None:
        """Have its user, from the next start on, these grants only, and settings (XML).

        The engine merges what is in ``users.d`` into its users' configuration.
        """
        queries = "".join(f"<query>GRANT {grant}</query>" for grant in grants)
        user = f"<users><default><grants>{queries}</grants></default></users>"
        profiles = f"<profiles><default>{profile}</default></profiles>"
        file = self.path / "users.d" / "restricted.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<clickhouse>{profiles}{user}</clickhouse>")

    def start(self, port: int = 0) -> EmbeddedServer:
        """Start the process and wait until it serves."""
        self._process = spawn_embedded(self.path, port, self.password)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            _, errors = self._process.communicate()
            raise RuntimeError(f"the embedded ClickHouse does not start: {line}{errors}")
        self.port = int(found[1])
        return self

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Stop it; the exit code and what else it wrote to stdout and stderr."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        out, errors = process.communicate(timeout=STOP_TIMEOUT_S)
        return process.returncode, out, errors

    def kill(self) -> None:
        """End it as a crash would, with SIGKILL."""
        self.stop(signal.SIGKILL)

    def client(self, **kwargs: Any) -> Client:
        """A ``clickhouse-connect`` client. The caller closes it."""
        return clickhouse_connect.get_client(
            **{"host": self.host, "port": self.port, "password": self.password} | kwargs
        )

    def __enter__(self) -> EmbeddedServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()


def spawn_embedded(path: Path, port: int, password: str) -> subprocess.Popen[str]:
    """The process, not waited for, with its output piped."""
    return subprocess.Popen(
        [sys.executable, "-m", "laion.embedded", "--path", str(path), "--port", str(port)],
        env=os.environ | {"CLICKHOUSE_PASSWORD": password, "PYTHONPATH": str(INCLUDE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def poll(condition: Callable[[], object], timeout_s: float = POLL_TIMEOUT_S) -> None:
    """Wait until a condition holds; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
