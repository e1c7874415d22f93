"""The staging area: where the files of a shard lie between download and publication.

One directory per attempt, `<root>/<table>/<shard>-<attempt>/`. The directories are also the
slots of the back-pressure: a download starts only while fewer than a cap exist.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from laion.errors import BadSource, DiskFull
from laion.urls import is_local, local_path

STALE_AFTER_S = 6 * 3600
"""An attempt whose directory was not touched for this long is dead: no task may run longer."""


@dataclass(frozen=True)
class StagingArea:
    """A directory shared by the workers, holding at most `capacity` shards at once."""

    root: Path
    capacity: int

    @classmethod
    def from_uri(cls, uri: str, capacity: int) -> StagingArea:
        """Raises BadSource when the URI is of a kind that is not supported."""
        if not is_local(uri):
            raise BadSource(
                f"LAION_STAGING_URI: {urlsplit(uri).scheme or uri!r} is not supported for staging; "
                "use file:///a/directory that all workers share"
            )
        return cls(local_path(uri), capacity)

    def directory(self, table: str, shard: int, attempt: str) -> Path:
        """Return the directory of an attempt, whether it exists or not."""
        return self.root / table / f"{shard:05d}-{attempt}"

    def claim(self, table: str, shard: int, attempt: str) -> Path | None:
        """Make the directory of an attempt, or return None while the area is full.

        The directory is made first and counted after, so that two claims at once can at worst
        both be turned away, never both let in.
        """
        mine = self.directory(table, shard, attempt)
        mine.mkdir(parents=True)
        if sum(1 for _ in self._attempts()) > self.capacity:
            mine.rmdir()
            return None
        return mine

    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> Path | None:
        """Give an earlier attempt's directory, with what it fetched, to a new attempt.

        Its place in the area goes with it. Returns None when there is no such directory.
        """
        mine = self.directory(table, shard, attempt)
        try:
            self.directory(table, shard, earlier).rename(mine)
        except FileNotFoundError:
            return None
        os.utime(mine)
        return mine

    def release(self, table: str, shard: int, attempt: str) -> None:
        """Delete the directory of an attempt and nothing else; it may be gone already."""
        shutil.rmtree(self.directory(table, shard, attempt), ignore_errors=True)

    def sweep(self, now: float | None = None) -> list[Path]:
        """Delete attempts nobody has touched for STALE_AFTER_S and return their directories."""
        oldest = (now or time.time()) - STALE_AFTER_S
        stale = [directory for directory in self._attempts() if _last_touched(directory) < oldest]
        for directory in stale:
            shutil.rmtree(directory, ignore_errors=True)
        return stale

    def _attempts(self) -> Iterator[Path]:
        return self.root.glob("*/?????-????????")


def _last_touched(directory: Path) -> float:
    times = [0.0]
    for path in (directory, *directory.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


@contextlib.contextmanager
def disk_full_as_error(directory: Path, needed: str) -> Iterator[None]:
    """Turn 'no space left' inside the block into DiskFull, saying where and what is needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full_error(directory, needed) from error


def disk_full_error(directory: Path, needed: str) -> DiskFull:
    """Return the error that says where there is no room, what for and what to do."""
    free = shutil.disk_usage(directory).free
    return DiskFull(
        f"no room in {directory}: {needed}, {free:,} bytes free. Free some space, point "
        "LAION_STAGING_URI at a larger disk or lower LAION_MAX_SHARDS_IN_FLIGHT."
    )
