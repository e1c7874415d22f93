"""The services of `docker-compose.yaml` as plain processes on this machine.

Environment, commands and health checks are those of the file, with addresses, volumes and secrets
put in as Compose would. Not the images: PostgreSQL and Redis are Debian's, ClickHouse is the
embedded one (with one user), S3 is moto's server, the sample has its own web server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from laion.clickhouse.users import ROLES, read_grants
from laion.sample.airflow_api import AirflowApi
from laion.sample.processes import Process, free_port, start
from laion.sample.waiting import wait_for, wait_until
from tests.embedded_server import EmbeddedServer
from tests.s3 import S3Server

PROJECT = Path(__file__).parents[2]
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"))
REDIS = shutil.which("redis-server")
WORKERS = ("worker1", "worker2")
AIRFLOW = ("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
ENTRY_POINTS = {
    "laion-health": [sys.executable, str(PROJECT / "docker" / "airflow" / "health.py")],
    "laion-init": ["bash", str(PROJECT / "docker" / "airflow" / "init.sh")],
}
ARRIVAL_S = 0.5
"""For what a worker has sent before it was held."""
VARIABLE = re.compile(r"\$\{(\w+)(?::[?-]([^}]*))?\}")

QUICKLY = {
    # A worker that is killed is noticed sooner than after the usual five minutes, and what it had
    # been sent and not begun is sent to another one sooner than after ten.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "LAION_RETRY_DELAY_S": "1",
}


def missing_programs() -> str:
    """Say what of Debian's packages is missing, or nothing."""
    lacking = [] if (POSTGRES / "initdb").exists() else ["postgresql"]
    return ", ".join(lacking + ([] if REDIS else ["redis-server"]))


@dataclass
class ComposeStack:
    """Below `state`; a context manager. Workers share no directory: `s3` is their staging area.

    `programs` is where the services of Airflow have their programs, and `udf_python` the Python of
    ClickHouse: those of this environment, or of an image.
    """

    state: Path
    s3: S3Server
    programs: Path = Path(sys.executable).parent
    udf_python: Path = Path(sys.executable)
    processes: dict[str, Process] = field(default_factory=dict)
    _exits: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        text = (PROJECT / "docker-compose.yaml").read_text()
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
        (self.state / "pictures").mkdir(exist_ok=True)
        env_file = self.state / ".env"
        subprocess.run(
            ["bash", PROJECT / "scripts" / "env.sh", env_file],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        lines = [line.split("=", 1) for line in env_file.read_text().splitlines() if "=" in line]
        self.variables = {name: value for name, value in lines if not name.startswith("#")}
        self.bucket = self.s3.make_bucket()
        self.variables["AIRFLOW_CONN_LAION_S3"] = json.dumps(self.s3.airflow_connection)
        self.variables["LAION_STAGING_URI"] = f"s3://{self.bucket}/staging"
        self.ports = {name: free_port() for name in ("postgres", "redis", "airflow-apiserver")}
        self.clickhouse = EmbeddedServer(self.state / "clickhouse")

    @property
    def airflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['airflow-apiserver']}"

    def api(self, user: str) -> AirflowApi:
        """A client of the REST API, logged in."""
        password = self.variables[f"AIRFLOW_{user.upper()}_PASSWORD"]
        api = AirflowApi(self.airflow_url, user, password)
        api.log_in()
        return api

    def __enter__(self) -> ComposeStack:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        # Not below a directory that only root may enter: PostgreSQL refuses to run as root.
        self.postgres = Path(
            self._exits.enter_context(tempfile.TemporaryDirectory("laion", dir="/tmp"))
        )
        with self.clickhouse, self.clickhouse.client() as client:
            client.command("CREATE DATABASE laion")
        # One user has to do for all three.
        grants = {grant for role in ROLES for grant in read_grants(role, "laion", ["s3"])}
        self.clickhouse.restrict(f"{what} ON {target}" for what, target in sorted(grants))
        self._exits.enter_context(self.clickhouse)
        self._exits.callback(self._stop)
        self.ports["clickhouse"] = self.clickhouse.port
        self._start_postgres()
        self._start_redis()
        self._start_sample()
        init = subprocess.run(
            self._at_entry_point(self.services["airflow-init"]["command"]),
            env=self.environment("airflow-init"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert init.returncode == 0, init.stdout + init.stderr
        for name in AIRFLOW:
            self._start_airflow(name, name)
        for name in WORKERS:
            self.start_worker(name)
        wait_for(
            lambda: None if self._is_ready() else "services: starting", *self.processes.values()
        )

    def start_worker(self, name: str) -> None:
        self._start_airflow(name, "airflow-worker", "--celery-hostname", f"{name}@%h")

    def kill_at_work(self, name: str, running: Callable[[], Collection[int]]) -> int:
        """Kill a worker and everything it has started, if it is at work on a task.

        `running` returns the process ids of tasks that have begun and not ended. The worker is held
        while it is asked, so that no task ends meanwhile. Returns how many processes were killed.
        """
        held = self._family(name)
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(ARRIVAL_S)
        if not {process.pid for process in held} & set(running()):
            for process in held:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
            return 0
        family = self._family(name)
        for process in family:
            process.kill()
        psutil.wait_procs(family[1:])
        self.processes.pop(name).stop()
        return len(family)

    def _family(self, name: str) -> list[psutil.Process]:
        worker = psutil.Process(self.processes[name].pid)
        return [worker, *worker.children(recursive=True)]

    def check_health(self, name: str, service: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health check."""
        kind, *words = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        command = self._at_entry_point([self._at_home(word) for word in words])
        if command[0] == "pg_isready":
            command[0] = str(POSTGRES / "pg_isready")
            command.append(f"--port={self.ports['postgres']}")
        env = self.environment(service, name)
        env["REDISCLI_AUTH"] = self.variables["REDIS_PASSWORD"]
        command = [
            word.replace("redis-cli", f"redis-cli -p {self.ports['redis']}") for word in command
        ]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def check_all_healthy(self) -> None:
        """Run the health check of everything that is running."""
        copies = {"postgres": "postgres", "redis": "redis", "clickhouse": "clickhouse"}
        copies |= {name: name for name in AIRFLOW} | dict.fromkeys(WORKERS, "airflow-worker")
        for name, service in copies.items():
            check = self.check_health(name, service)
            assert check.returncode == 0, (name, check.stdout + check.stderr)

    def _at_entry_point(self, command: list[str]) -> list[str]:
        """Put the checkout's files in the place of the image's commands, unless it is an image."""
        if (self.programs / command[0]).exists():
            return [str(self.programs / command[0]), *command[1:]]
        return [*ENTRY_POINTS.get(command[0], command[:1]), *command[1:]]

    def environment(self, service: str, name: str = "") -> dict[str, str]:
        """The environment of a service's process; `name` tells copies of it apart."""
        home = self.state / (name or service)
        home.mkdir(exist_ok=True)
        own = {
            key: self._at_home(self._interpolate(str(value)))
            for key, value in self.services[service].get("environment", {}).items()
            if value is not None
        }
        own = {key: self._in_volumes(value, service, home) for key, value in own.items()}
        for key in own:
            if key.startswith("AIRFLOW_CONN_CLICKHOUSE"):
                own[key] = json.dumps({**self.clickhouse.airflow_connection, "schema": "laion"})
        own.pop("CLICKHOUSE_ADMIN_URL", None)  # The embedded ClickHouse has one user.
        return {
            **os.environ,
            **own,
            **QUICKLY,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.ports["airflow-apiserver"]),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "LAION_SCRATCH_DIR": str(home / "scratch"),
            "LAION_WORKER_NAME": f"{name}@{os.uname().nodename}",
            "LAION_UDF_PYTHON": str(self.udf_python),
            "TMPDIR": str(self.state),
        }

    def _interpolate(self, text: str) -> str:
        return VARIABLE.sub(lambda m: self.variables.get(m[1]) or m[2] or "", text)

    def _at_home(self, text: str) -> str:
        """Put this machine's ports in the place of the services' addresses."""
        for host, port in self.ports.items():
            text = re.sub(rf"\b{host}:\d+", f"127.0.0.1:{port}", text)
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self.ports['airflow-apiserver']}")

    def _in_volumes(self, text: str, service: str, home: Path) -> str:
        """Put directories in the place of volumes; only those that Compose mounts are shared."""
        text = text.replace("/opt/airflow/udf/scripts", str(self.clickhouse.path / "user_scripts"))
        text = text.replace(
            "/opt/airflow/udf/functions", str(self.clickhouse.path / "user_defined_functions")
        )
        for volume in ("models", "pictures"):
            text = text.replace(f"/srv/{volume}", str(self.state / volume))
        for mount in self.services[service].get("volumes", []):
            volume, target = mount.split(":")[:2]
            if volume in ("models", "auth"):
                text = text.replace(target, str(self.state / volume))
        return text.replace("/opt/airflow", str(home))

    def _start_airflow(self, name: str, service: str, *more: str) -> None:
        command = [self._at_home(word) for word in self.services[service]["command"]]
        if command[1] == "api-server":
            command[command.index("--port") + 1] = str(self.ports["airflow-apiserver"])
        log = self.state / "logs" / f"{name}.log"
        self.processes[name] = start(name, [*command, *more], log, self.environment(service, name))

    def _start_postgres(self) -> None:
        data = self.postgres
        become: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(data, "postgres")
            become = ["runuser", "-u", "postgres", "--"]
        env = {**os.environ, "PGPASSWORD": self.variables["POSTGRES_PASSWORD"]}
        password = data / "password"
        password.write_text(env["PGPASSWORD"])
        password.chmod(0o644)
        self._run(
            [
                *become,
                POSTGRES / "initdb",
                "-D",
                data / "data",
                "-U",
                "airflow",
                "--no-sync",
                "--auth=scram-sha-256",
                f"--pwfile={password}",
            ]
        )
        port = self.ports["postgres"]
        command = [
            *become,
            str(POSTGRES / "postgres"),
            "-D",
            str(data / "data"),
            "-p",
            str(port),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={data}",
        ]
        log = self.state / "logs" / "postgres.log"
        self.processes["postgres"] = start("postgres", command, log, env)
        ask = [POSTGRES / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(self.processes["postgres"], lambda: not subprocess.call(ask))
        self._run(
            [POSTGRES / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", "airflow"],
            env,
        )

    def _start_redis(self) -> None:
        command = self.services["redis"]["command"]
        assert "redis-server --appendonly yes" in command[-1]
        directory = self.state / "redis"
        directory.mkdir()
        command = [
            *command[:-1],
            command[-1]
            .replace("$$", "$")
            .replace(
                "redis-server",
                f"{REDIS} --port {self.ports['redis']} --bind 127.0.0.1 --dir {directory}",
            ),
        ]
        env = {**os.environ, "REDISCLI_AUTH": self.variables["REDIS_PASSWORD"]}
        log = self.state / "logs" / "redis.log"
        self.processes["redis"] = start("redis", command, log, env)

    def _start_sample(self) -> None:
        self.ports["sample"] = free_port()
        command = [
            str(self.programs / "python"),
            "-m",
            "laion.sample",
            "serve",
            f"--directory={self.state / 'sample'}",
            f"--port={self.ports['sample']}",
        ]
        log = self.state / "logs" / "sample.log"
        self.processes["sample"] = start("sample", command, log, dict(os.environ))

    def _is_ready(self) -> bool:
        try:
            health = requests.get(f"{self.airflow_url}/api/v2/monitor/health", timeout=5).json()
            if any(part["status"] != "healthy" for part in health.values()):
                return False
            self.api("admin").get("dags/laion_ingest")
        except Exception:
            return False
        return all(self.check_health(name, "airflow-worker").returncode == 0 for name in WORKERS)

    def _stop(self) -> None:
        order = [*WORKERS, *reversed(AIRFLOW), "sample", "redis", "postgres"]
        for name in order:
            if name in self.processes:
                self.processes[name].stop()

    def _run(self, command: list[Any], env: dict[str, str] | None = None) -> None:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
