"""Child processes of the demo: started with a log file, stopped with all that they have started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from laion.errors import ProcessFailed, StillRunning
from laion.sample.family import Member, end, family, marked

LOG_TAIL_LINES = 15
NOTICE_TIMEOUT_S = 10


@dataclass(frozen=True)
class Process:
    """A child in a session of its own, writing to a log file."""

    name: str
    pid: int
    log: Path
    _popen: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        if self._popen is not None:
            return self._popen.poll() is None
        return any(member.pid == self.pid for member in family(self.log))

    def stop(self) -> None:
        """End it and all that it has started, in order. Raises StillRunning."""
        self._end(at_once=False)

    def kill(self) -> None:
        """End it and all that it has started by SIGKILL. Raises StillRunning."""
        self._end(at_once=True)

    def _end(self, at_once: bool) -> None:
        # A server that keeps a title of its own may have lost its environment over it.
        is_own = self._popen is not None and self.is_running
        left = end(self.log, session=self.pid if is_own else 0, at_once=at_once)
        self.take_notice()
        if left:
            raise still_running(left)

    def take_notice(self) -> None:
        """Let the system forget a child that has ended, or is about to."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(NOTICE_TIMEOUT_S)

    def log_tail(self) -> str:
        """Return where the log is, and its last lines."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([f"The log {self.log} ends with:", *lines[-LOG_TAIL_LINES:]])


def start(name: str, command: list[str], log: Path, env: dict[str, str]) -> Process:
    """Start a child in a new session, its output going to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            env=marked(env, log),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(name, popen.pid, log, popen)


def still_running(left: Iterable[Member]) -> StillRunning:
    """Return an error that names processes."""
    names = "\n".join(f"  {member.pid}  {member.command[:100]}" for member in left)
    return StillRunning(f"these processes could not be ended, not even by SIGKILL:\n{names}")


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
