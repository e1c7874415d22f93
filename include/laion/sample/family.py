"""The family of a log: the child that was started with it, and all that this child has started.

A child starts with the path of its log in its environment, and in a session of its own. What it
starts inherits both, whatever becomes of the child, or of the command that started it. So nothing
has to be written down, and a process that has got the number of one that ended is not taken for it.

It takes both. ClickHouse clears the environment of its functions' processes, and Airflow hides
that of its supervisors; the number of a session may be another's once all of its processes ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MARK = "LAION_DEMO_LOG"
STOP_TIMEOUT_S = 30
KILL_TIMEOUT_S = 10
POLL_S = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Member:
    """A process as /proc shows it; one that has ended is there until its parent takes notice.

    `cpu_s` is with that of its ended children, `started` in ticks after the machine's start.
    """

    pid: int
    parent: int
    session: int
    has_ended: bool
    cpu_s: float
    started: int

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process has: numbers are given again."""
        return self.pid, self.started

    @property
    def log(self) -> Path | None:
        """The log in its environment; None where there is none, or none that may be read."""
        try:
            variables = Path(f"/proc/{self.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return None
        mark = f"{MARK}=".encode()
        logs = (Path(os.fsdecode(v[len(mark) :])) for v in variables if v.startswith(mark))
        return next(logs, None)

    @property
    def command(self) -> str:
        """What it was started as, or what it calls itself."""
        try:
            words = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return "has just ended"
        return words.replace(b"\0", b" ").decode(errors="replace").strip()


Find = Callable[[list[Member]], list[Member]]
"""Picks the members of a family out of all live processes."""


def marked(env: dict[str, str], log: Path) -> dict[str, str]:
    """Return an environment that makes a child, and what it starts, the family of `log`."""
    # Or else setproctitle, which Airflow uses, writes its titles over the environment.
    return {**env, MARK: str(log.resolve()), "SPT_NOENV": "1"}


def family(*logs: Path) -> list[Member]:
    """Return the live processes of these logs; of a directory, those of every log below it."""
    return _members(_alive(), logs)


def children(pid: int) -> list[Member]:
    """Return the children of a process, ended ones of which it has not taken notice included."""
    return [process for process in _processes() if process.parent == pid]


def lost_children(pid: int, for_s: float = 1.0) -> set[int]:
    """Return the children of a process that have ended without its taking notice, for so long."""
    if lost := _ended_children(pid):
        time.sleep(for_s)
        lost &= _ended_children(pid)
    return lost


def end(*logs: Path, session: int = 0, at_once: bool = False) -> list[Member]:
    """End the family of these logs: by SIGTERM, and by SIGKILL what is left after STOP_TIMEOUT_S.

    `session` is one that is known to belong to it. Returns what could not be ended, such as what
    another user has started.
    """
    find = partial(_members, logs=logs, session=session)
    left = [] if at_once else _send(signal.SIGTERM, find, STOP_TIMEOUT_S)
    return _send(signal.SIGKILL, find, KILL_TIMEOUT_S) if at_once or left else []


def _send(signum: signal.Signals, find: Find, timeout_s: float) -> list[Member]:
    """Send a signal to each of a family, once; return what is left after a time."""
    deadline = time.monotonic() + timeout_s
    reached: set[tuple[int, int]] = set()
    while True:
        alive = _alive()
        found = find(alive)
        for member in found:
            if member.identity not in reached:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(member.pid, signum)
        reached |= {member.identity for member in found}
        # While a process is ending it has lost its environment, but not yet its ports and locks.
        left = [process for process in alive if process.identity in reached]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)


def _members(alive: list[Member], logs: tuple[Path, ...], session: int = 0) -> list[Member]:
    paths = {log.resolve() for log in logs}
    bearing = [p for p in alive if (log := p.log) and not paths.isdisjoint((log, *log.parents))]
    # A session belongs to its leader, and without one to whoever is left. So a shell lives on when
    # somebody runs a command in it with the environment of a member.
    numbers = {p.pid for p in bearing}
    others = {p.pid for p in alive} - numbers
    sessions = ({p.session for p in bearing} - others | {session}) - {0}
    return [p for p in alive if p.pid in numbers or p.session in sessions]


def _ended_children(pid: int) -> set[int]:
    return {child.pid for child in children(pid) if child.has_ended}


def _alive() -> list[Member]:
    return [process for process in _processes() if not process.has_ended]


def _processes() -> list[Member]:
    found = map(_read, Path("/proc").glob("[0-9]*"))
    return [process for process in found if process is not None]


def _read(directory: Path) -> Member | None:
    """Read a process; None when it has just ended."""
    try:
        stat = (directory / "stat").read_text(errors="replace")
    except OSError:
        return None
    # See proc(5). What comes before the last bracket is a name, which may hold anything.
    state, parent, _, session, *numbers = stat.rpartition(")")[2].split()
    return Member(
        pid=int(directory.name),
        parent=int(parent),
        session=int(session),
        # The first thread of a process may end before the others do.
        has_ended=state in "ZX" and int(numbers[13]) <= 1,
        cpu_s=sum(map(int, numbers[7:11])) / TICKS_PER_S,
        started=int(numbers[15]),
    )
