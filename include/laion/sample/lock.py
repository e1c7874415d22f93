"""One command at a time in a state directory."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from laion.errors import StackBusy

LOCK = "lock"


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Have a state directory, which is made, for the length of the block. Raises StackBusy.

    The lock ends with the process that holds it, however that ends.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackBusy(
                f"another command, process {lock.read().strip()}, is at work in {state}. "
                "Wait until it has ended, or end it with Ctrl-C"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def clear(state: Path) -> None:
    """Remove all of a state directory but its lock."""
    for path in state.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
