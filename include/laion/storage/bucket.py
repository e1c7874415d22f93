"""A staging area on S3, for workers that share nothing else.

Tasks work in a scratch directory of their machine: what they make is uploaded, what they need is
fetched.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from laion.errors import LaionError, StagingGone, StorageRefused, StorageUnreachable
from laion.s3 import S3Options, split_uri
from laion.storage.area import KEPT, STALE_AFTER_S, StagingArea, Workspace
from laion.storage.disk import disk_full_as_error
from laion.storage.scratch import open_scratch, take_over_scratch
from laion.urls import is_s3

log = logging.getLogger(__name__)

CLAIM = ".claim"
"""An empty object that holds the place of an attempt, as S3 knows no directories."""

RECORD = ".source"
PARTS = (".part", ".part.source")

PIECE_BYTES = 5 << 20
"""S3 takes no smaller ones; what is on its way is in memory."""
PIECES_AT_ONCE = 2

_ATTEMPT = re.compile(r"\d{5}-[0-9a-f]{8}")


@dataclass(frozen=True)
class BucketArea(StagingArea):
    """Attempts as prefixes below `root`, `s3://bucket/prefix`."""

    root: str
    capacity: int
    scratch: Path
    s3: S3Options

    def directory(self, table: str, shard: int, attempt: str) -> str:
        """Return the prefix of an attempt's objects, without a slash at the end."""
        return f"{self.root}/{table}/{shard:05d}-{attempt}"

    def claim(self, table: str, shard: int, attempt: str) -> bool:
        mine = self.directory(table, shard, attempt)
        with self._typed_errors(mine):
            self._fs.pipe_file(f"{mine}/{CLAIM}", b"")
            if len(self._attempts()) > self.capacity:
                self._fs.rm_file(f"{mine}/{CLAIM}")
                return False
        return True

    def adopt(self, table: str, shard: int, earlier: str, attempt: str) -> bool:
        theirs, mine = (self.directory(table, shard, a) for a in (earlier, attempt))
        with self._typed_errors(theirs):
            found = self._fs.find(theirs)
            for path in found:
                self._fs.cp_file(path, f"{mine}/{_name(path)}")
            if found:
                self._fs.rm(theirs, recursive=True)
                take_over_scratch(self.scratch, _name_scratch(theirs), _name_scratch(mine))
        return bool(found)

    def release(self, table: str, shard: int, attempt: str) -> None:
        mine = self.directory(table, shard, attempt)
        try:
            with self._typed_errors(mine):
                self._delete(mine)
        except LaionError as error:
            log.warning("%s is left over until it is swept: %s", mine, error)

    def sweep(self, now: float | None = None) -> list[str]:
        oldest = (now or time.time()) - STALE_AFTER_S
        with self._typed_errors(self.root):
            stale = [path for path in self._attempts() if self._last_touched(path) < oldest]
            for path in stale:
                self._delete(path)
            self._abort_uploads(oldest)
        return [f"s3://{path}" for path in stale]

    @contextmanager
    def workspace(
        self, table: str, shard: int, attempt: str, *, resume: bool = False
    ) -> Iterator[Workspace]:
        mine = self.directory(table, shard, attempt)
        with open_scratch(self.scratch, _name_scratch(mine)) as directory:
            work = Scratch(self, mine, directory)
            if resume:
                work.restore()
            try:
                yield work
            except BaseException:
                if resume:
                    work.save_parts()
                raise

    def keep(self, place: str, table: str) -> str:
        kept = f"{self.root}/{KEPT}/{table}/{_name(place)}"
        with self._typed_errors(place):
            self._fs.cp_file(place, kept)
        return kept

    def write(self, name: str, data: bytes) -> str:
        """Write a small object below the root and return its URI."""
        place = f"{self.root}/{name}"
        with self._typed_errors(place):
            self._fs.pipe_file(place, data)
        return place

    def delete(self, place: str) -> None:
        """Delete an object."""
        with self._typed_errors(place):
            self._fs.rm_file(place)

    def list_files(self, prefix: str) -> list[str]:
        """Return the names of the objects below a prefix."""
        with self._typed_errors(prefix):
            return [_name(path) for path in self._fs.find(prefix)]

    def upload(self, path: Path, place: str) -> None:
        """Copy a file of this machine to an object."""
        with self._typed_errors(place):
            self._fs.put_file(
                str(path), place, chunksize=PIECE_BYTES, max_concurrency=PIECES_AT_ONCE
            )

    def fetch(self, place: str, path: Path) -> None:
        """Copy an object to a file of this machine. Raises StagingGone when there is none."""
        with (
            disk_full_as_error(path.parent, f"{path.name} is needed here"),
            self._typed_errors(place),
        ):
            try:
                self._fs.get_file(
                    place, str(path), chunksize=PIECE_BYTES, max_concurrency=PIECES_AT_ONCE
                )
            except FileNotFoundError as missing:
                raise StagingGone(
                    f"{place} is not there any more; clear the shard's download_shard task to "
                    "fetch it again"
                ) from missing

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3", **self.s3.filesystem_options())

    @contextmanager
    def _typed_errors(self, place: str) -> Iterator[None]:
        """Turn what S3's client raises inside the block into errors of ours."""
        from aiohttp import ClientError
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError, ClientError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            # An upload may be gone too, after an answer that was lost.
            if isinstance(error, PermissionError) or "NoSuchBucket" in repr(error.__cause__):
                raise StorageRefused(
                    f"S3 refuses {place}: {error}; check LAION_STAGING_URI, and the credentials of "
                    "its connection, which must read, write, list and delete there"
                ) from error
            raise StorageUnreachable(
                f"S3 fails on {place}: {error or type(error).__name__}"
            ) from error

    def _attempts(self) -> list[str]:
        tables = [path for path in self._list(self.root) if _name(path) != KEPT]
        listed = (path for table in tables for path in self._list(table))
        return [path for path in listed if _ATTEMPT.fullmatch(_name(path))]

    def _list(self, prefix: str) -> list[str]:
        try:
            return list(self._fs.ls(prefix, detail=False, refresh=True))
        except FileNotFoundError:
            return []

    def _last_touched(self, prefix: str) -> float:
        found = self._fs.find(prefix, detail=True).values()
        return max((info["LastModified"].timestamp() for info in found), default=time.time())

    def _delete(self, prefix: str) -> None:
        if self._fs.find(prefix):
            self._fs.rm(prefix, recursive=True)

    def _abort_uploads(self, oldest: float) -> None:
        """End uploads that a killed worker has begun: S3 would keep, and bill, their pieces."""
        bucket, prefix = split_uri(f"{self.root}/")
        listed = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for upload in listed.get("Uploads", ()):
            if upload["Initiated"].timestamp() < oldest:
                self._fs.call_s3(
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )


class Scratch(Workspace):
    """A scratch directory, and the prefix on S3 that it stands for."""

    def __init__(self, area: BucketArea, prefix: str, directory: Path) -> None:
        self.directory = directory
        self._area = area
        self._prefix = prefix
        self._restored: dict[str, tuple[int, int]] = {}

    def store(self, path: Path) -> str:
        if not path.is_relative_to(self.directory):
            return str(path)
        # The record goes last: whoever has it has the file.
        for file in (path, path.with_name(path.name + RECORD)):
            if file.exists() and self._restored.get(file.name) != _version(file):
                self._area.upload(file, f"{self._prefix}/{file.name}")
        for suffix in PARTS:
            if path.name + suffix in self._restored:
                self._area.delete(f"{self._prefix}/{path.name}{suffix}")
        return f"{self._prefix}/{path.name}"

    def bring(self, place: str) -> Path:
        if not is_s3(place):
            return Path(place)
        path = self.directory / _name(place)
        if not path.exists():
            self._area.fetch(place, path)
        return path

    def restore(self) -> None:
        """Bring everything that the attempt has on S3, unless it is here."""
        for name in self._area.list_files(self._prefix):
            path = self.directory / name
            if name != CLAIM and not path.exists():
                self._area.fetch(f"{self._prefix}/{name}", path)
                self._restored[name] = _version(path)

    def save_parts(self) -> None:
        """Store unfinished files, for the next try wherever it runs."""
        for suffix in PARTS:
            for path in self.directory.glob(f"*{suffix}"):
                try:
                    if path.stat().st_size:
                        self._area.upload(path, f"{self._prefix}/{path.name}")
                except LaionError as error:
                    log.warning("The next try begins %s again: %s", path.name, error)


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _name_scratch(prefix: str) -> str:
    return "-".join(PurePosixPath(prefix).parts[-2:])


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
