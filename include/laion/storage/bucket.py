"""A staging area on S3, for workers that share nothing else.

Tasks work in a scratch directory of their machine: what they make is uploaded, what they need is
fetched.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from laion.errors import LaionError
from laion.s3 import S3Options
from laion.storage.area import KEPT, STALE_AFTER_S, StagingArea, Workspace
from laion.storage.objects import Objects, name_of
from laion.storage.scratch import open_scratch, take_over_scratch
from laion.urls import is_s3

log = logging.getLogger(__name__)

CLAIM = ".claim"
"""An empty object that holds the place of an attempt, as S3 knows no directories."""

RECORD = ".source"
PARTS = (".part", ".part.source")

_ATTEMPT = re.compile(r"\d{5}-[0-9a-f]{8}")


@dataclass(frozen=True)
class BucketArea(StagingArea):
    """Attempts as prefixes below `root`, `s3://bucket/prefix`."""

    root: str
    capacity: int
    scratch: Path
    s3: S3Options

    @cached_property
    def objects(self) -> Objects:
        """The objects of this S3."""
        return Objects(self.s3)

    def directory(self, table: str, shard: int, attempt: str) -> str:
        """Return the prefix of an attempt's objects, without a slash at the end."""
        return f"{self.root}/{table}/{shard:05d}-{attempt}"

    def claim(self, table: str, shard: int, attempt: str) -> bool:
        mine = f"{self.directory(table, shard, attempt)}/{CLAIM}"
        self.objects.write(mine, b"")
        if len(self._attempts()) > self.capacity:
            self.objects.delete(mine)
            return False
        return True

    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> bool:
        theirs, mine = (self.directory(table, shard, a) for a in (earlier, attempt))
        names = self.objects.list_files(theirs)
        for name in names:
            self.objects.copy(f"{theirs}/{name}", f"{mine}/{name}")
        if names:
            self.objects.delete_all(theirs)
            take_over_scratch(self.scratch, _name_scratch(theirs), _name_scratch(mine))
        return bool(names)

    def holds(self, table: str, shard: int, attempt: str) -> bool:
        return self.objects.read(f"{self.directory(table, shard, attempt)}/{CLAIM}") is not None

    def release(self, table: str, shard: int, attempt: str) -> None:
        mine = self.directory(table, shard, attempt)
        try:
            self.objects.delete_all(mine)
        except LaionError as error:
            log.warning("%s is left over until it is swept: %s", mine, error)

    def attempts(self) -> list[tuple[str, int, str]]:
        names = [(path.split("/")[-2], *name_of(path).split("-")) for path in self._attempts()]
        return [(table, int(shard), attempt) for table, shard, attempt in names]

    def sweep(
        self,
        now: float | None = None,
        keep: Collection[str] = (),
        untouched_s: float = STALE_AFTER_S,
    ) -> list[str]:
        oldest = (now or time.time()) - untouched_s
        stale = [
            path
            for path, touched in self._attempts().items()
            if name_of(path).rpartition("-")[2] not in keep and touched < oldest
        ]
        for path in stale:
            self.objects.delete_all(path)
        self.objects.abort_uploads(f"{self.root}/", oldest)
        return stale

    @contextmanager
    def workspace(
        self, table: str, shard: int, attempt: str, *, resume: bool = False
    ) -> Iterator[Workspace]:
        mine = self.directory(table, shard, attempt)
        with open_scratch(self.scratch, _name_scratch(mine)) as directory:
            work = Scratch(self.objects, mine, directory)
            if resume:
                work.restore()
            try:
                yield work
            except BaseException:
                if resume:
                    work.save_parts()
                raise

    def keep(self, place: str, table: str) -> str:
        kept = f"{self.root}/{KEPT}/{table}/{name_of(place)}"
        self.objects.copy(place, kept)
        return kept

    def _attempts(self) -> dict[str, float]:
        """Return the prefix of every attempt, and when an object below it was written last."""
        found: dict[str, float] = {}
        for table in self.objects.list_directories(self.root):
            if name_of(table) == KEPT:
                continue
            for place, written in self.objects.list_written(table).items():
                prefix = place.rpartition("/")[0]
                if _ATTEMPT.fullmatch(name_of(prefix)):
                    found[prefix] = max(written, found.get(prefix, written))
        return found


class Scratch(Workspace):
    """A scratch directory, and the prefix on S3 that it stands for."""

    def __init__(self, objects: Objects, prefix: str, directory: Path) -> None:
        self.directory = directory
        self._objects = objects
        self._prefix = prefix
        self._restored: dict[str, tuple[int, int]] = {}

    def store(self, path: Path) -> str:
        if not path.is_relative_to(self.directory):
            return str(path)
        # The record goes last: whoever has it has the file.
        for file in (path, path.with_name(path.name + RECORD)):
            if file.exists() and self._restored.get(file.name) != _version(file):
                self._objects.upload(file, f"{self._prefix}/{file.name}")
        for suffix in PARTS:
            if path.name + suffix in self._restored:
                self._objects.delete(f"{self._prefix}/{path.name}{suffix}")
        return f"{self._prefix}/{path.name}"

    def bring(self, place: str) -> Path:
        if not is_s3(place):
            return Path(place)
        path = self.directory / name_of(place)
        if not path.exists():
            self._objects.fetch(place, path)
        return path

    def restore(self) -> None:
        """Bring everything that the attempt has on S3, unless it is here."""
        for name in self._objects.list_files(self._prefix):
            path = self.directory / name
            if name != CLAIM and not path.exists():
                self._objects.fetch(f"{self._prefix}/{name}", path)
                self._restored[name] = _version(path)

    def save_parts(self) -> None:
        """Store unfinished files, for the next try wherever it runs."""
        for suffix in PARTS:
            for path in self.directory.glob(f"*{suffix}"):
                try:
                    if path.stat().st_size:
                        self._objects.upload(path, f"{self._prefix}/{path.name}")
                except LaionError as error:
                    log.warning("The next try begins %s again: %s", path.name, error)


def _name_scratch(prefix: str) -> str:
    return "-".join(PurePosixPath(prefix).parts[-2:])


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
