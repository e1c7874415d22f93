"""Directories of this machine for the length of a task, which outlive no task for long."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED_AFTER_S = 900
"""What a killed task has left may be taken over by its next try here for so long."""

LOCK = ".lock"


@contextmanager
def open_scratch(root: Path, name: str) -> Iterator[Path]:
    """Yield the directory `name` below `root`, locked, and delete it afterwards.

    One in which a task still works, such as one that was given up but lives on, is left to it:
    then it is another directory. Those whose task was killed some time ago are deleted on the way.
    """
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root, time.time() - ABANDONED_AFTER_S)
    directory = root / name
    if directory.exists() and not _is_abandoned(directory):
        directory = root / f"{name}-{secrets.token_hex(4)}"
    directory.mkdir(exist_ok=True)
    with (directory / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def take_over_scratch(root: Path, earlier: str, name: str) -> None:
    """Give a new name to what a killed task has left here, if it has."""
    with contextlib.suppress(OSError):
        if _is_abandoned(root / earlier):
            os.utime(root / earlier)
            (root / earlier).rename(root / name)


def _sweep(root: Path, oldest: float) -> None:
    for directory in root.iterdir():
        with contextlib.suppress(OSError):
            touched = max(path.stat().st_mtime for path in (directory, *directory.iterdir()))
            if touched < oldest and _is_abandoned(directory):
                shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    """Return whether no living process has locked the directory."""
    try:
        with (directory / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True
