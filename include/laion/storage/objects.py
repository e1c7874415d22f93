"""Objects on S3 by their URIs, through fsspec, with errors of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from laion.errors import StagingGone, StorageRefused, StorageUnreachable
from laion.s3 import S3Options, s3_packages, split_uri
from laion.storage.disk import disk_full_as_error

PIECE_BYTES = 5 << 20
"""S3 takes no smaller ones; what is on its way is in memory."""
PIECES_AT_ONCE = 2


@dataclass(frozen=True)
class Objects:
    """What can be done to objects. Every method raises StorageRefused, StorageUnreachable."""

    s3: S3Options

    def write(self, place: str, data: bytes) -> None:
        """Write a small object."""
        with self._typed_errors(place):
            self._fs.pipe_file(place, data)

    def read(self, place: str) -> bytes | None:
        """Return a small object, or None when there is none."""
        with self._typed_errors(place):
            try:
                return bytes(self._fs.cat_file(place))
            except FileNotFoundError:
                return None

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
                    f"{place} is not there any more; clear this task to fetch it again"
                ) from missing

    def copy(self, place: str, to: str) -> None:
        """Copy an object without its bytes passing through this machine."""
        with self._typed_errors(place):
            self._fs.cp_file(place, to)

    def delete(self, place: str) -> None:
        """Delete an object; it may be gone already."""
        with self._typed_errors(place):
            self._fs.rm_file(place)

    def delete_all(self, prefix: str) -> None:
        """Delete every object below a prefix."""
        with self._typed_errors(prefix):
            if self._fs.find(prefix):
                self._fs.rm(prefix, recursive=True)

    def list_directories(self, prefix: str) -> list[str]:
        """Return what lies directly below a prefix: objects, and prefixes of further ones."""
        with self._typed_errors(prefix):
            try:
                return [f"s3://{path}" for path in self._fs.ls(prefix, detail=False, refresh=True)]
            except FileNotFoundError:
                return []

    def list_files(self, prefix: str) -> list[str]:
        """Return the names of all objects below a prefix."""
        with self._typed_errors(prefix):
            return [name_of(path) for path in self._fs.find(prefix)]

    def list_written(self, prefix: str) -> dict[str, float]:
        """Return all objects below a prefix, and when each was written."""
        with self._typed_errors(prefix):
            found = self._fs.find(prefix, detail=True)
            return {f"s3://{p}": info["LastModified"].timestamp() for p, info in found.items()}

    def abort_uploads(self, prefix: str, oldest: float) -> None:
        """End uploads that were begun before: S3 would keep, and bill, their pieces."""
        bucket, key = split_uri(prefix)
        with self._typed_errors(prefix):
            listed = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key)
            for upload in listed.get("Uploads", ()):
                if upload["Initiated"].timestamp() < oldest:
                    self._fs.call_s3(
                        "abort_multipart_upload",
                        Bucket=bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        return fsspec.filesystem("s3", **self.s3.filesystem_options())

    @contextmanager
    def _typed_errors(self, place: str) -> Iterator[None]:
        """Turn what S3's client raises inside the block into errors of ours."""
        with s3_packages():
            import s3fs  # noqa: F401
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
                    f"S3 refuses {place}: {error}; check its address, LAION_STAGING_URI for "
                    "staging, and its credentials, which must read, write, list and delete there"
                ) from error
            raise StorageUnreachable(
                f"S3 fails on {place}: {error or type(error).__name__}"
            ) from error


def name_of(place: str) -> str:
    """Return the last part of a URI."""
    return PurePosixPath(place).name
