"""What a staging area is, wherever it lies.

It holds one directory per attempt, `<root>/<table>/<shard>-<attempt>/`. The directories are also
the slots of the back-pressure: a download starts only while fewer than a cap exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

STALE_AFTER_S = 6 * 3600
"""An attempt whose directory was not touched for this long is dead: no task may run longer."""

KEPT = "parquet"
"""Directory of the root for Parquet files that are kept; attempts lie two levels below the root."""


class Workspace(ABC):
    """A directory of this machine in which a task works on the files of one attempt."""

    directory: Path

    @abstractmethod
    def store(self, path: Path) -> str:
        """Put a finished file of the directory into the staging area; return where it lies there.

        What is beside it under the same name with a suffix (its record) goes along.
        """

    @abstractmethod
    def bring(self, place: str) -> Path:
        """Return a path of this machine for a file; one that lies elsewhere is fetched.

        Raises StagingGone when the staging area does not have it any more.
        """


class StagingArea(ABC):
    """Where attempts keep their files, shared by the workers; at most `capacity` shards at once."""

    root: str | Path
    capacity: int

    @abstractmethod
    def claim(self, table: str, shard: int, attempt: str) -> bool:
        """Take a place for an attempt; return False, having taken none, while the area is full.

        The place is taken first and the places are counted after, so that two claims at once can
        at worst both be turned away, never both let in.
        """

    @abstractmethod
    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> bool:
        """Give an earlier attempt's files and place to a new attempt; False when it has none."""

    @abstractmethod
    def holds(self, table: str, shard: int, attempt: str) -> bool:
        """Return whether an attempt has its place still."""

    @abstractmethod
    def release(self, table: str, shard: int, attempt: str) -> None:
        """Delete the files of an attempt and nothing else; they may be gone already."""

    @abstractmethod
    def attempts(self) -> list[tuple[str, int, str]]:
        """Return (table, shard, attempt) of every place that is taken."""

    @abstractmethod
    def sweep(
        self,
        now: float | None = None,
        keep: Collection[str] = (),
        untouched_s: float = STALE_AFTER_S,
    ) -> list[str]:
        """Delete attempts nobody has touched for so long and return where they were.

        Those in `keep` stay: their runs go on, whatever a clock says.
        """

    @abstractmethod
    def workspace(
        self, table: str, shard: int, attempt: str, *, resume: bool = False
    ) -> AbstractContextManager[Workspace]:
        """Yield a place to work on an attempt's files.

        With `resume`, it begins with what the attempt has fetched so far, finished or not, and
        keeps what is unfinished when the block fails.
        """

    @abstractmethod
    def keep(self, place: str, table: str) -> str:
        """Move a stored file to where no release or sweep takes it; return where it lies then."""
