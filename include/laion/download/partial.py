"""A file that is being fetched, and what its bytes are of: enough to go on after any crash.

Beside `a.npy` lie `a.npy.part`, the bytes so far, and `a.npy.part.source`, a JSON record of where
they come from. When the file is complete both take its name: `a.npy.source` tells what `a.npy` is.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType

PART_SUFFIX = ".part"
RECORD_SUFFIX = ".source"


@dataclass(frozen=True)
class Origin:
    """One version of one remote file; `url` is without credentials, `size` in bytes.

    `sha256` is filled in when the file is complete and was hashed.
    """

    url: str
    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    sha256: str = ""

    @property
    def validator(self) -> str:
        """What `If-Range` takes: a strong ETag, else Last-Modified; empty when there is none."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def is_version_of(self, other: Origin) -> bool:
        """Return whether both are the same version of the same file, as far as they tell."""
        return (
            self.url == other.url
            and self.size == other.size
            and self.etag == other.etag
            and (bool(self.etag) or self.last_modified == other.last_modified)
        )


class PartialFile:
    """The part of a file, open for writing at its end; a context manager.

    Holds a lock: when another process, such as a worker that was given up but lives on, still
    writes the part, that one keeps its own unnamed file and this one starts anew.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + PART_SUFFIX)
        self._file: FileIO | None = None

    def __enter__(self) -> PartialFile:
        file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            self.path.unlink(missing_ok=True)
            file = self.path.open("ab", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    @property
    def file(self) -> FileIO:
        """The open file, written at its end."""
        assert self._file is not None
        return self._file

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return os.fstat(self.file.fileno()).st_size

    @property
    def origin(self) -> Origin | None:
        """What the bytes are of, or None when that is not known."""
        return read_origin(self.path)

    def write(self, data: bytes) -> None:
        """Put bytes behind those that are here."""
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def restart(self, origin: Origin) -> None:
        """Throw the bytes away; those to come are of `origin`."""
        self.file.truncate(0)
        write_origin(self.path, origin)

    def complete(self, origin: Origin) -> None:
        """Give the part the file's name once it is on disk.

        The record follows the file: whoever dies in between leaves a file that is fetched again,
        never one that is taken for another version.
        """
        os.fsync(self.file.fileno())
        self.path.replace(self.target)
        write_origin(self.target, origin)
        _record_of(self.path).unlink(missing_ok=True)
        _sync_directory(self.target.parent)

    def discard(self) -> None:
        """Delete the part and its record; a complete older file stays."""
        self.path.unlink(missing_ok=True)
        _record_of(self.path).unlink(missing_ok=True)


def read_origin(path: Path) -> Origin | None:
    """Return what a file, or the part of one, comes from; None when there is no such record."""
    try:
        return parse_origin(_record_of(path).read_bytes())
    except OSError:
        return None


def parse_origin(record: bytes) -> Origin | None:
    """Return what a record says; None when it is none."""
    try:
        return Origin(**json.loads(record))
    except (ValueError, TypeError):
        return None


def write_origin(path: Path, origin: Origin) -> None:
    """Record what a file, or the part of one, comes from, in one step."""
    record = _record_of(path)
    new = record.with_name(record.name + ".new")
    try:
        new.write_text(json.dumps(asdict(origin)) + "\n")
        new.replace(record)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + RECORD_SUFFIX)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
