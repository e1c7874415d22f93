"""Child processes of the demo: started with a log file, waited for, stopped without leftovers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from laion.errors import ProcessFailed

STOP_TIMEOUT_S = 30
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Process:
    """A child in a process group of its own, writing to a log file."""

    name: str
    pid: int
    log: Path
    _popen: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def stop(self) -> None:
        """End the whole group: SIGTERM, and SIGKILL for what is left after STOP_TIMEOUT_S."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signum)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self._group_exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            if not self._group_exists():
                return

    def _group_exists(self) -> bool:
        if self._popen is not None:
            self._popen.poll()
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def start(name: str, command: list[str], log: Path, env: dict[str, str]) -> Process:
    """Start a child in a new session, its output going to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, popen.pid, log, popen)


def wait_until(process: Process, is_ready: Callable[[], bool], timeout_s: float) -> None:
    """Wait until `is_ready()`. Raises ProcessFailed with the log's end when it will not be."""
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if not process.is_running:
            raise ProcessFailed(
                f"{process.name} ended while starting. Its log {process.log} ends with:\n"
                f"{process.log_tail()}"
            )
        if time.monotonic() > deadline:
            raise ProcessFailed(
                f"{process.name} is not ready after {timeout_s:.0f} s. Its log {process.log} ends "
                f"with:\n{process.log_tail()}"
            )
        time.sleep(0.2)


def free_port(preferred: int = 0) -> int:
    """Return `preferred` if nothing listens there on 127.0.0.1 or is about to, else a free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                if not port or _reserve(port):
                    return int(probe.getsockname()[1])
    raise ProcessFailed("no free TCP port on 127.0.0.1")


_reserved: set[int] = set()


def _reserve(port: int) -> bool:
    """Take a port until this process ends: another stack may start before ours listens there."""
    if port in _reserved:
        return True
    path = Path(tempfile.gettempdir(), f"laion-port-{port}-{os.getuid()}")
    lock = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _reserved.add(port)
    return True
