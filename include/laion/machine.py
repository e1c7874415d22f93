"""What this machine has, and how much of the work fits on it at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

STAGED_SHARD_BYTES = 4_500_000_000
"""A shard of LAION-400M in the staging area: 2.2 GB of files and as much Parquet."""
TASK_BYTES = 1_000_000_000
"""Memory of a converting or loading task: 0.3 GB its own, as measured, and Airflow around it."""


def count_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def read_memory() -> int:
    """Return the bytes of RAM that this process may use: the machine's, or its container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def fitting_tasks() -> int:
    """Return how many shards to convert, and to load, at once.

    Half the cores each, as both run side by side, and no more than a quarter of the memory holds.
    """
    return max(1, min(count_cores() // 2, read_memory() // 4 // TASK_BYTES))


def fitting_shards(directory: Path) -> int:
    """Return how many shards may be staged at once below `directory`, which need not exist yet.

    Two for each core, and no more than half of the disk's free space holds, but two at least.
    """
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    room = shutil.disk_usage(existing).free // 2 // STAGED_SHARD_BYTES
    return max(2, min(2 * count_cores(), room))
