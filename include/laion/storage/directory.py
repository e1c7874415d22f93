"""A staging area in a directory that all workers share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laion.storage.area import KEPT, STALE_AFTER_S, StagingArea, Workspace


class InPlace(Workspace):
    """The directory of an attempt itself: nothing is copied."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def store(self, path: Path) -> str:
        return str(path)

    def bring(self, place: str) -> Path:
        return Path(place)


@dataclass(frozen=True)
class DirectoryArea(StagingArea):
    """Attempts as directories below `root`."""

    root: Path
    capacity: int

    def directory(self, table: str, shard: int, attempt: str) -> Path:
        """Return the directory of an attempt, whether it exists or not."""
        return self.root / table / f"{shard:05d}-{attempt}"

    def claim(self, table: str, shard: int, attempt: str) -> bool:
        mine = self.directory(table, shard, attempt)
        mine.mkdir(parents=True)
        if sum(1 for _ in self._attempts()) > self.capacity:
            mine.rmdir()
            return False
        return True

    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> bool:
        mine = self.directory(table, shard, attempt)
        try:
            self.directory(table, shard, earlier).rename(mine)
        except FileNotFoundError:
            return False
        os.utime(mine)
        return True

    def release(self, table: str, shard: int, attempt: str) -> None:
        shutil.rmtree(self.directory(table, shard, attempt), ignore_errors=True)

    def attempts(self) -> list[tuple[str, int, str]]:
        names = [(path.parent.name, *path.name.split("-")) for path in self._attempts()]
        return [(table, int(shard), attempt) for table, shard, attempt in names]

    def sweep(self, now: float | None = None, keep: Collection[str] = ()) -> list[str]:
        oldest = (now or time.time()) - STALE_AFTER_S
        stale = [
            directory
            for directory in self._attempts()
            if directory.name.rpartition("-")[2] not in keep and _last_touched(directory) < oldest
        ]
        for directory in stale:
            shutil.rmtree(directory, ignore_errors=True)
        return [str(directory) for directory in stale]

    @contextmanager
    def workspace(
        self, table: str, shard: int, attempt: str, *, resume: bool = False
    ) -> Iterator[Workspace]:
        yield InPlace(self.directory(table, shard, attempt))

    def keep(self, place: str, table: str) -> str:
        path = Path(place)
        kept = self.root / KEPT / table / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)
        return str(kept)

    def _attempts(self) -> Iterator[Path]:
        return self.root.glob("*/?????-????????")


def _last_touched(directory: Path) -> float:
    times = [0.0]
    for path in (directory, *directory.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)
