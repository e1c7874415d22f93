"""Fetch one file over HTTP: go on where an earlier try stopped, and accept nothing but the file."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import requests

from laion.download.http import check_status, request
from laion.download.options import DownloadOptions
from laion.download.partial import Origin, PartialFile, read_origin
from laion.download.progress import Progress
from laion.download.remote import origin_of
from laion.errors import (
    ChecksumMismatch,
    DiskFull,
    SourceBusy,
    SourceChanged,
    SourceError,
    SourceIncomplete,
    SourceUnreachable,
    SourceUnusable,
)
from laion.storage import disk_full_as_error, disk_full_error
from laion.urls import hide_credentials

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
"""Read at once: what a reset connection can cost at most beside what the network loses."""

MAX_RESTARTS = 1
"""A file is begun again so often when it changes meanwhile or its checksum is wrong."""

MAGIC = {".npy": b"\x93NUMPY", ".parquet": b"PAR1"}
"""How a file of a kind begins: an error page with status 200 does not."""


@dataclass(frozen=True)
class FetchedFile:
    """A complete file on this machine and what it is a copy of; `size` in bytes."""

    path: Path
    size: int
    origin: Origin


class Digest(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def fetch_file(
    url: str,
    target: Path,
    session: requests.Session,
    options: DownloadOptions,
    progress: Progress | None = None,
    sha256: str = "",
) -> FetchedFile:
    """Fetch `url` to `target`, which appears only when it is complete, checked and on disk.

    A target that is there already is kept when the source still has the same version of it. What
    an earlier try has left in `target.part` is kept as well when the source confirms that it is
    of the same version. `sha256` is what the file must have, where that is known.

    Raises SourceUnreachable or SourceIncomplete (the part stays for the next try), SourceBusy,
    SourceChanged, ChecksumMismatch, SourceMissing, SourceRefused, SourceUnusable, DiskFull.
    """
    counter = progress or Progress(target.name)
    shown = hide_credentials(url)
    kept = _keep_finished(url, target, session, options)
    if kept is not None:
        counter.set_file(target.name, kept.size, kept.size)
        return kept
    idle, restarts, furthest = 0, 0, 0
    while True:
        with PartialFile(target) as part:
            furthest = max(furthest, part.size)
            try:
                return _fetch_once(url, part, session, options, counter, sha256)
            except (SourceChanged, ChecksumMismatch) as error:
                part.discard()
                restarts += 1
                if restarts > MAX_RESTARTS:
                    raise
                log.warning("%s The file is begun again.", error)
            except (SourceUnreachable, SourceIncomplete) as error:
                idle = 0 if part.size > furthest else idle + 1
                furthest = max(furthest, part.size)
                if idle >= options.tries or not _wait(error, idle, options):
                    if not part.size:
                        part.discard()
                    raise
                log.warning("%s Going on with %s from byte %s.", error, shown, f"{furthest:,}")
            except BaseException as error:
                # A task that is stopped can be gone on with; a wrong answer cannot.
                if isinstance(error, (SourceError, DiskFull)) or not part.size:
                    part.discard()
                raise


def _keep_finished(
    url: str, target: Path, session: requests.Session, options: DownloadOptions
) -> FetchedFile | None:
    """Return a target that is there and still what the source has, else None."""
    origin = read_origin(target)
    if origin is None or not target.is_file() or target.stat().st_size != origin.size:
        return None
    if not is_unchanged(origin, url, session, options):
        return None
    return FetchedFile(target, origin.size, origin)


def is_unchanged(
    origin: Origin, url: str, session: requests.Session, options: DownloadOptions
) -> bool:
    """Return whether a source has the version of a file that was fetched from there."""
    with request(session, "HEAD", url, options) as response:
        if response.status_code != 200:
            return False
        now = origin_of(response, hide_credentials(url))
    if not now.is_version_of(origin):
        log.warning("%s has changed; it is fetched again.", hide_credentials(url))
        return False
    return True


def _fetch_once(
    url: str,
    part: PartialFile,
    session: requests.Session,
    options: DownloadOptions,
    progress: Progress,
    sha256: str,
) -> FetchedFile:
    shown = hide_credentials(url)
    known = _resumable(part, shown)
    wanted = options.checksum or bool(sha256)
    if known is not None and part.size == known.size:
        progress.set_file(part.target.name, known.size, known.size)
        return _complete(part, known, _hash_file(part, wanted), sha256)
    headers = {}
    if known is not None:
        headers = {"Range": f"bytes={part.size}-", "If-Range": known.validator}
    with request(session, "GET", url, options, headers) as response:
        check_status(response, shown, good=(200,) if known is None else (200, 206, 416))
        if known is not None and response.status_code != 200:
            origin = known
            _check_range(response, known, part.size)
        else:
            origin = origin_of(response, shown)
            part.restart(origin)
        _refuse_other_content(response, shown)
        progress.set_file(part.target.name, part.size, origin.size)
        digest = _hash_file(part, wanted)
        with _room_for(part, origin):
            for chunk in _chunks(response, part, shown):
                part.write(chunk)
                if digest is not None:
                    digest.update(chunk)
                progress.add(part.target.name, len(chunk))
    if not (part.size or origin.size):
        raise SourceUnusable(f"{shown} is empty")
    if origin.size is not None and part.size != origin.size:
        raise SourceIncomplete(f"{shown} has {origin.size:,} bytes, but {part.size:,} arrived.")
    return _complete(part, origin, digest, sha256)


def _resumable(part: PartialFile, shown: str) -> Origin | None:
    """Return what the part is of when it can be gone on with from this URL, else None."""
    origin = part.origin
    if not part.size or origin is None or origin.url != shown or not origin.validator:
        return None
    return origin if origin.size is not None and part.size <= origin.size else None


def _check_range(response: requests.Response, known: Origin, offset: int) -> None:
    """Raise SourceChanged unless a 206 is the rest of the version that the part is of.

    A server may take the Range and ignore the If-Range, so its word is not enough.
    """
    told = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
    )
    size = None if told is None or told[2] == "*" else int(told[2])
    now = origin_of(response, known.url, size)
    right_place = told is not None and int(told[1]) == offset
    if response.status_code != 206 or not right_place or not now.is_version_of(known):
        raise SourceChanged(f"{known.url} is no longer the file that was begun to be fetched.")


def _refuse_other_content(response: requests.Response, shown: str) -> None:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise SourceUnusable(
            f"the source sends {shown} compressed ({encoding}) although asked not to; let it serve "
            "the file as it is"
        )
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise SourceUnusable(f"the source answers with a web page instead of {shown}")


def _chunks(response: requests.Response, part: PartialFile, shown: str) -> Iterator[bytes]:
    """Yield the body; raise SourceUnusable when a file's beginning is not one of its kind."""
    magic = b"" if part.size else MAGIC.get(part.target.suffix, b"")
    # A short body is told by the caller, with both sizes.
    response.raw.enforce_content_length = False
    while chunk := response.raw.read(CHUNK_BYTES):
        if not chunk.startswith(magic[: len(chunk)]):
            raise SourceUnusable(
                f"{shown} is no {part.target.suffix} file: it begins with {chunk[:16]!r}; is it an "
                "error page?"
            )
        magic = b""
        yield chunk


@contextmanager
def _room_for(part: PartialFile, origin: Origin) -> Iterator[None]:
    """Raise DiskFull before the rest of a file is begun that cannot fit, or when it does not."""
    directory = part.target.parent
    missing = (origin.size or 0) - part.size
    needed = f"{part.target.name} needs {missing if origin.size else '?'} bytes"
    if missing > shutil.disk_usage(directory).free:
        raise disk_full_error(directory, needed)
    with disk_full_as_error(directory, needed):
        yield


def _hash_file(part: PartialFile, wanted: bool) -> Digest | None:
    """Return the hash of what is here, to be gone on with, or None when none is wanted."""
    if not wanted:
        return None
    with part.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _complete(part: PartialFile, origin: Origin, digest: Digest | None, sha256: str) -> FetchedFile:
    found = "" if digest is None else digest.hexdigest()
    if sha256 and found and found != sha256.lower():
        raise ChecksumMismatch(
            f"{origin.url} has sha256 {found}, {sha256} is expected; the copy at the source is "
            "damaged or another version. Use another mirror."
        )
    size = part.size
    origin = replace(origin, size=size, sha256=found)
    part.complete(origin)
    return FetchedFile(part.target, size, origin)


def _wait(error: SourceError, idle: int, options: DownloadOptions) -> bool:
    """Wait before the next try; return False, at once, when that would be too long here."""
    wait_s = options.first_wait_s * 2 ** (idle - 1) if idle else 0.0
    if isinstance(error, SourceBusy) and error.wait_s is not None:
        wait_s = error.wait_s
    if wait_s > options.longest_wait_s:
        return False
    # Tasks that failed together must not come back together.
    time.sleep(wait_s * random.uniform(1, 1.5))
    return True
