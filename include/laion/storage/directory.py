"""A staging area in a directory that all workers share."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laion.errors import StorageRefused
from laion.storage.area import KEPT, STALE_AFTER_S, StagingArea, Workspace

REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})


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
        with self._refusal_as_error():
            mine.mkdir(parents=True)
        if sum(1 for _ in self._attempts()) > self.capacity:
            mine.rmdir()
            return False
        return True

    def check_writable(self) -> None:
        """Make a directory in the area and take it away again. Raises StorageRefused, OSError."""
        probe = self.root / f".probe-{secrets.token_hex(4)}"
        with self._refusal_as_error():
            probe.mkdir(parents=True)
        probe.rmdir()

    @contextmanager
    def _refusal_as_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            place = next(p for p in Path(error.filename).parents if os.access(p, os.F_OK))
            owner = place.stat().st_uid
            raise StorageRefused(
                f"the staging area {self.root} cannot be written by user {os.geteuid()}, as whom "
                f"this runs: {error.strerror}; {place} belongs to user {owner}. Give it to user "
                f"{os.geteuid()}, or point LAION_STAGING_URI at a directory of theirs"
            ) from error

    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> bool:
        mine = self.directory(table, shard, attempt)
        try:
            self.directory(table, shard, earlier).rename(mine)
        except FileNotFoundError:
            return False
        os.utime(mine)
        return True

    def holds(self, table: str, shard: int, attempt: str) -> bool:
        return self.directory(table, shard, attempt).is_dir()

    def release(self, table: str, shard: int, attempt: str) -> None:
        shutil.rmtree(self.directory(table, shard, attempt), ignore_errors=True)

    def attempts(self) -> list[tuple[str, int, str]]:
        names = [(path.parent.name, *path.name.split("-")) for path in self._attempts()]
        return [(table, int(shard), attempt) for table, shard, attempt in names]

    def sweep(
        self,
        now: float | None = None,
        keep: Collection[str] = (),
        untouched_s: float = STALE_AFTER_S,
    ) -> list[str]:
        oldest = (now or time.time()) - untouched_s
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
