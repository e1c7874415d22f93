"""The whole product on one machine: embedded ClickHouse, sample source and `airflow standalone`.

Everything the stack writes lies below one directory; `stack.json` there says where its parts serve.
Which processes are the stack's is asked of the system: see `family`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from laion.errors import ProcessFailed
from laion.sample.airflow_api import AirflowApi
from laion.sample.airflow_start import USER, read_password, stage_of_standalone
from laion.sample.dataset import URL_BASE
from laion.sample.family import end, family, lost_children
from laion.sample.model import MODELS
from laion.sample.pictures import write_example_pictures
from laion.sample.processes import Process, free_port, start, still_running
from laion.sample.waiting import wait_for

PROJECT = Path(__file__).resolve().parents[3]
AIRFLOW = str(Path(sys.executable).parent / "airflow")
AIRFLOW_PORT = 8080
CLICKHOUSE_PORT = 8123
SOURCE_PORT = 8090


@dataclass(frozen=True)
class StackInfo:
    """Addresses, credentials and process ids of a running stack."""

    airflow_url: str
    airflow_user: str
    airflow_password: str
    clickhouse_port: int
    clickhouse_password: str
    source_url: str
    pids: dict[str, int]


@dataclass
class Stack:
    """A stack below `state`; `extra_env` goes to Airflow's processes."""

    ORDER: ClassVar = ("clickhouse", "source", "airflow")
    """In the order in which they start: Airflow's tasks use the others."""

    state: Path
    extra_env: dict[str, str] = field(default_factory=dict)
    _children: dict[str, Process] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.state = self.state.absolute()

    @property
    def info_file(self) -> Path:
        return self.state / "stack.json"

    @property
    def airflow_home(self) -> Path:
        return self.state / "airflow"

    @property
    def pictures(self) -> Path:
        """The directory that `encode_image` reads."""
        return self.state / "pictures"

    def start(self) -> StackInfo:
        """Start what the stack consists of, or return the running one. Raises ProcessFailed.

        What is left of one that has lost a part, or whose start was broken off, is stopped first.
        """
        running = self.running()
        if running is not None:
            return running
        if not (PROJECT / "dags").is_dir():
            raise ProcessFailed(f"{PROJECT} has no dags/: run this from a checkout of the project")
        self.stop()
        self.state.mkdir(parents=True, exist_ok=True)
        try:
            info = self._start()
        except BaseException:
            self.stop()
            raise
        self.info_file.touch(mode=0o600)
        self.info_file.write_text(json.dumps(asdict(info), indent=2))
        return info

    def running(self) -> StackInfo | None:
        """Return the running stack, or None; a stack of which a part has died does not run."""
        try:
            info = StackInfo(**json.loads(self.info_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if not all(self._process(name, pid).is_running for name, pid in info.pids.items()):
            return None
        airflow = info.pids.get("airflow")
        return None if airflow and lost_children(airflow) else info

    @property
    def has_processes(self) -> bool:
        """Whether anything is left that the stack has started."""
        return bool(family(self._logs))

    def stop(self) -> bool:
        """Stop all that the stack has started, and return whether there was something.

        Another command may have started it. Raises StillRunning.
        """
        had_processes = self.has_processes
        for part in reversed(self.ORDER):
            end(self._log(part))
        left = end(self._logs)
        for process in self._children.values():
            process.take_notice()
        if left:
            raise still_running(left)
        self.info_file.unlink(missing_ok=True)
        return had_processes

    def clickhouse_client(self, info: StackInfo) -> Client:
        """Return a client of the stack's ClickHouse."""
        return clickhouse_connect.get_client(
            host="127.0.0.1",
            port=info.clickhouse_port,
            username="default",
            password=info.clickhouse_password,
            autogenerate_session_id=False,
        )

    def airflow_api(self, info: StackInfo) -> AirflowApi:
        """Return a logged-in client of the stack's Airflow."""
        api = AirflowApi(info.airflow_url, info.airflow_user, info.airflow_password)
        api.log_in()
        return api

    def task_log(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> Path | None:
        """Return the log of the last try of a task instance, or None when it has none."""
        logs = self.airflow_home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}"
        logs /= f"task_id={task_id}"
        if map_index >= 0:
            logs /= f"map_index={map_index}"
        return max(logs.glob("attempt=*.log"), key=lambda log: log.stat().st_mtime, default=None)

    def _start(self) -> StackInfo:
        write_example_pictures(self.pictures)
        password = self._clickhouse_password()
        env = dict(os.environ, PYTHONUNBUFFERED="1", CLICKHOUSE_PASSWORD=password)
        python = [sys.executable, "-m"]
        clickhouse_port = free_port(CLICKHOUSE_PORT)
        clickhouse = self._launch(
            "clickhouse",
            [
                *python,
                "laion.embedded",
                f"--path={self.state / 'clickhouse'}",
                f"--port={clickhouse_port}",
            ],
            env,
        )
        source = self._launch(
            "source",
            [
                *python,
                "laion.sample",
                "serve",
                f"--directory={self.state / 'sample'}",
                f"--port={free_port(SOURCE_PORT)}",
            ],
            env,
        )
        _wait_for_url(clickhouse, "ClickHouse: starting")
        _wait_for_url(source, "the sample's source: writing its files")
        source_url = _announced_url(source.log) or ""

        airflow_url = f"http://127.0.0.1:{free_port(AIRFLOW_PORT)}"
        env = self.airflow_env(airflow_url, clickhouse_port, password, source_url)
        self.start_airflow(env, airflow_url)
        return StackInfo(
            airflow_url=airflow_url,
            airflow_user=USER,
            airflow_password=read_password(self.airflow_home),
            clickhouse_port=clickhouse_port,
            clickhouse_password=password,
            source_url=source_url,
            pids={name: process.pid for name, process in self._children.items()},
        )

    def start_airflow(self, env: dict[str, str], url: str) -> None:
        """Start Airflow and wait until it is ready."""
        airflow = self._launch("airflow", [AIRFLOW, "standalone"], env)
        wait_for(lambda: stage_of_standalone(airflow, url, self.airflow_home), airflow)

    def _launch(self, name: str, command: list[str], env: dict[str, str]) -> Process:
        process = start(name, command, self._log(name), env)
        self._children[name] = process
        return process

    def airflow_env(
        self, airflow_url: str, clickhouse_port: int, password: str, source_url: str
    ) -> dict[str, str]:
        """Return the environment of Airflow's processes."""
        connection = {
            "conn_type": "clickhouse",
            "host": "127.0.0.1",
            "port": clickhouse_port,
            "login": "default",
            "password": password,
            "schema": "default",
        }
        parallelism = max(4, 2 * (os.cpu_count() or 1))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        return {
            **os.environ,
            "PATH": path,
            # Or else what was said last is lost when a process is killed.
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(self.airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__MAX_MAP_LENGTH": "5000",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            # Or else those that wait for room in the staging area take the others' places.
            "LAION_MAX_PARALLEL_DOWNLOADS": str(min(4, parallelism // 2)),
            # When a supervisor misses the end of its task, it looks again after this.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__MP_START_METHOD": "forkserver",
            "AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD": "laion.orchestration.preload",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow_url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": airflow_url.rpartition(":")[2],
            "AIRFLOW__API__BASE_URL": airflow_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW_CONN_CLICKHOUSE_DEFAULT": json.dumps(connection),
            "LAION_STAGING_URI": (self.state / "staging").as_uri(),
            "LAION_SAMPLE_SOURCE": source_url,
            "LAION_PICTURES_MIRROR": f"{URL_BASE}/={source_url}/",
            "LAION_MODELS_DIR": str(MODELS),
            "LAION_UDF_SCRIPTS_DIR": str(self.state / "clickhouse" / "user_scripts"),
            "LAION_UDF_FUNCTIONS_DIR": str(self.state / "clickhouse" / "user_defined_functions"),
            "LAION_UDF_PYTHON": sys.executable,
            "LAION_UDF_IMAGE_ROOT": str(self.pictures),
            **self.extra_env,
        }

    def _clickhouse_password(self) -> str:
        """Return the password of this state directory, made on first use."""
        file = self.state / "clickhouse.password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(16))
        return file.read_text()

    @property
    def _logs(self) -> Path:
        return self.state / "logs"

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _process(self, name: str, pid: int) -> Process:
        """Return a process that this object has started, or that another one has."""
        return self._children.get(name) or Process(name, pid, self._log(name))


@contextmanager
def running_stack(
    state: Path, extra_env: dict[str, str] | None = None
) -> Iterator[tuple[Stack, StackInfo]]:
    """Start a stack for the length of the block."""
    stack = Stack(state, extra_env or {})
    info = stack.start()
    try:
        yield stack, info
    finally:
        stack.stop()


def _wait_for_url(process: Process, stage: str) -> None:
    """Wait until a server has announced where it serves."""
    wait_for(lambda: None if _announced_url(process.log) else stage, process)


def _announced_url(log: Path) -> str | None:
    match = re.search(r"http://127\.0\.0\.1:\d+", log.read_text(errors="replace"))
    return match[0] if match else None
