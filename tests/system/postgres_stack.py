"""The stack with PostgreSQL and Airflow's four parts as processes that can be killed one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

from laion.sample.airflow_start import stage_of_airflow
from laion.sample.processes import Process, free_port, start
from laion.sample.stack import AIRFLOW, Stack, StackInfo
from laion.sample.waiting import wait_for, wait_until
from tests.embedded_server import poll

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
HOST = "127.0.0.1"
REAPED_S = 30


def postgres_programs() -> Path | None:
    """Return the directory of PostgreSQL's programs, the newest; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else (Path(on_path).parent if on_path else None)


@dataclass
class PostgresStack(Stack):
    """A stack below `state`, its metadata in a PostgreSQL that lives as long as the stack."""

    ORDER: ClassVar = ("clickhouse", "source", "postgres", *PARTS)

    _env: dict[str, str] = field(default_factory=dict, init=False)
    _url: str = ""
    _directory: Path | None = field(default=None, init=False)
    _postgres_port: int = 0

    def start_airflow(self, env: dict[str, str], url: str) -> None:
        """Start PostgreSQL and Airflow's parts, and wait until they are ready."""
        self._postgres_port = free_port()
        dsn = f"postgresql+psycopg2://airflow@{HOST}:{self._postgres_port}/postgres"
        self._env = {**env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": dsn}
        self._url = url
        # Not below `state`: another user than ours must get there.
        self._directory = Path(tempfile.mkdtemp(prefix="laion-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._database, "postgres", "postgres")
        data = str(self._database / "data")
        subprocess.run(
            [*_as_postgres("initdb"), "-D", data, "-U", "airflow", "-A", "trust"],
            cwd=self._database,
            check=True,
            capture_output=True,
        )
        self.start_part("postgres")
        subprocess.run([AIRFLOW, "db", "migrate"], env=self._env, check=True, capture_output=True)
        for part in PARTS:
            self.start_part(part)
        self.wait_until_ready()

    def start_part(self, part: str) -> Process:
        """Start a part, again if it has died."""
        command = [AIRFLOW, part]
        if part == "postgres":
            port, sockets = str(self._postgres_port), str(self._database)
            data = str(self._database / "data")
            command = [*_as_postgres("postgres"), "-D", data, "-h", HOST, "-p", port, "-k", sockets]
        log = self.state / "logs" / f"{part}.log"
        if log.exists():
            log.rename(log.with_suffix(f".{len(list(log.parent.glob(part + '*')))}.log"))
        process = start(part, command, log, self._env)
        self._children[part] = process
        if part == "postgres":
            wait_until(process, self._postgres_answers)
        return process

    def wait_until_ready(self) -> None:
        """Wait until Airflow's parts say that they are well."""
        parts = [self._children[part] for part in PARTS]
        wait_for(lambda: stage_of_airflow(self._url, self.airflow_home), *parts)

    def kill(self, part: str) -> None:
        """SIGKILL a part and all that it has started, as the end of a container does.

        Returns when their process ids are free as well: PostgreSQL takes one that is not yet, in
        its lock file, for a server that is still running.
        """
        part_process = psutil.Process(self._children[part].pid)
        family = [part_process, *part_process.children(recursive=True)]
        self._children[part].kill()
        _, left = psutil.wait_procs(family, timeout=REAPED_S)
        assert not left, left

    def kill_alone(self, part: str) -> None:
        """SIGKILL a part's own process; what it has started lives on, until the stack stops."""
        os.kill(self._children[part].pid, signal.SIGKILL)
        poll(lambda: not self._children[part].is_running)

    def ended_parts(self) -> list[str]:
        """Return the parts that are not running."""
        return [part for part in PARTS if not self._children[part].is_running]

    def database_bytes(self) -> int:
        """Return the size of Airflow's metadata."""
        query = "SELECT pg_database_size('postgres')"
        command = [*_as_postgres("psql"), "-h", HOST, "-p", str(self._postgres_port)]
        done = subprocess.run(
            [*command, "-U", "airflow", "-d", "postgres", "-tAc", query],
            cwd="/",
            check=True,
            capture_output=True,
            text=True,
        )
        return int(done.stdout)

    def stop(self) -> bool:
        stopped = super().stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        return stopped

    @property
    def _database(self) -> Path:
        assert self._directory is not None
        return self._directory

    def _postgres_answers(self) -> bool:
        command = [*_as_postgres("pg_isready"), "-q", "-h", HOST, "-p", str(self._postgres_port)]
        return subprocess.run(command, cwd="/", check=False).returncode == 0


@contextmanager
def running_postgres_stack(
    state: Path, extra_env: dict[str, str]
) -> Iterator[tuple[PostgresStack, StackInfo]]:
    """Start a stack for the length of the block."""
    stack = PostgresStack(state, extra_env)
    try:
        yield stack, stack.start()
    finally:
        stack.stop()


def _as_postgres(program: str) -> list[str]:
    """Return how to run a program of PostgreSQL, which refuses to run as root."""
    programs = postgres_programs()
    assert programs is not None
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    return [*as_user, str(programs / program)]
