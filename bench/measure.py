"""CPU, wall and memory of child processes, and of a server that works for them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds, and peak resident memory in MB of its process."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    rss_mb: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


def run_step(step: str, *args: object, server_pid: int | None = None) -> Cost:
    """Run `python -m bench.steps STEP ARGS` alone and return its cost.

    Raises CalledProcessError when the step fails.
    """
    command = [sys.executable, "-m", "bench.steps", step, *map(str, args)]
    server_before = cpu_seconds(server_pid)
    began = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        server_cpu_s=cpu_seconds(server_pid) - server_before,
        rss_mb=usage.ru_maxrss / 1024,
    )


def cpu_seconds(pid: int | None) -> float:
    """Return the CPU seconds that a process has used so far; 0 for None."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def peak_rss_mb(pid: int) -> float:
    """Return the highest resident memory of a process since it began or was last reset."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/{pid}/status has no VmHWM")


def reset_peak_rss(pid: int) -> None:
    """Let `peak_rss_mb` start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
