"""The two directories of a ClickHouse host that functions are deployed into."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from laion.errors import DeployInProgress, UdfError, UdfTargetUnwritable

log = logging.getLogger(__name__)

LOCK = "laion_udf.lock"
LOCK_STALE_S = 1800
"""Longer than a deployment may take; what is older was left behind by one that was killed."""


class Directory(Protocol):
    """A directory of files, here or on another host.

    All raise UdfTargetUnwritable, or UdfHostUnreachable for another host.
    """

    def names(self) -> list[str]:
        """Return the names of the files in it."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None when it is not there."""

    def write(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Put a file in place in one rename, readable by everybody."""

    def create(self, name: str, content: bytes) -> bool:
        """Make a file unless there is one; return whether there was none."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""


class LocalDirectory:
    """A directory of this machine, such as a volume shared with the ClickHouse server."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        with self._typed_errors():
            return sorted(entry.name for entry in self._path.iterdir() if entry.is_file())

    def read(self, name: str) -> bytes | None:
        with self._typed_errors():
            try:
                return (self._path / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, *, executable: bool = False) -> None:
        temporary = self._path / f".{name}.{secrets.token_hex(4)}.tmp"
        with self._typed_errors():
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    os.fchmod(file.fileno(), file_mode(executable))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._path / name)
            finally:
                temporary.unlink(missing_ok=True)

    def create(self, name: str, content: bytes) -> bool:
        with self._typed_errors():
            try:
                with (self._path / name).open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        with self._typed_errors():
            (self._path / name).unlink(missing_ok=True)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UdfTargetUnwritable(
                f"the ClickHouse server's directory {self._path} cannot be used: "
                f"{error.strerror}. It must exist, and Airflow's workers must be able to write it."
            ) from error


def file_mode(executable: bool) -> int:
    """Return the mode of a deployed file: the server runs as another user than we do."""
    return 0o755 if executable else 0o644


@contextmanager
def locked(directory: Directory, owner: str = "") -> Iterator[None]:
    """Keep other deployments out of a host. Raises DeployInProgress.

    An `owner` that is named does one thing at a time: its lock is one that it was killed with.
    """
    lock = {"since": time.time(), "token": secrets.token_hex(8), "owner": owner}
    content = json.dumps(lock).encode()
    if not directory.create(LOCK, content):
        holder = directory.read(LOCK)
        is_own = holder is not None and owner != "" and _owner(holder) == owner
        if holder is not None and not is_own and _age_s(holder) < LOCK_STALE_S:
            raise DeployInProgress(
                f"another deployment has been at work for {_age_s(holder):.0f} s; if there is "
                f"none, remove {LOCK} from the server's user_scripts"
            )
        directory.remove(LOCK)
        if not directory.create(LOCK, content):
            raise DeployInProgress("another deployment began at the same moment")
    try:
        yield
    finally:
        try:
            if directory.read(LOCK) == content:
                directory.remove(LOCK)
        except UdfError as error:
            # Must not hide how the deployment ended.
            log.warning("the lock stays for %d minutes: %s", LOCK_STALE_S // 60, error)


def _owner(holder: bytes) -> str:
    try:
        return str(json.loads(holder)["owner"])
    except (ValueError, KeyError, TypeError):
        return ""


def _age_s(holder: bytes) -> float:
    try:
        return time.time() - float(json.loads(holder)["since"])
    except (ValueError, KeyError, TypeError):
        # Just made and not yet written, or cut off by a crash: young until it is removed by hand.
        return 0.0
