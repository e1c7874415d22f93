"""Fetch the three files of a shard into the staging area, or find them on this machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError as TransportError

from laion.errors import (
    LaionError,
    SourceIncomplete,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)
from laion.shards import ROLES, ShardFiles, ShardSpec
from laion.sources import hide_credentials, is_local, local_path
from laion.storage import disk_full_as_error

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a connection, and between two reads of it."""

    connect_s: float = 10
    read_s: float = 60


def find_local_files(spec: ShardSpec, attempt: str) -> ShardFiles:
    """Return the files of a `file://` source where they are. Raises SourceMissing."""
    paths = {role: local_path(spec.urls[role]) for role in ROLES}
    for path in paths.values():
        if not path.is_file():
            raise SourceMissing(f"{spec.label}: the source has no file {path}")
    return ShardFiles(
        spec=spec,
        attempt=attempt,
        paths={role: str(path) for role, path in paths.items()},
        sizes={role: path.stat().st_size for role, path in paths.items()},
        staged=False,
    )


def download_shard(
    spec: ShardSpec, attempt: str, directory: Path, timeouts: Timeouts | None = None
) -> ShardFiles:
    """Fetch the files of a shard into `directory`, all at once, each complete or not at all.

    Raises SourceError (unreachable, refused, missing, incomplete) or DiskFull.
    """
    waits = timeouts or Timeouts()
    # The role comes first: a layout may give files in different folders the same name.
    targets = {r: directory / f"{r}-{Path(urlsplit(spec.urls[r]).path).name}" for r in ROLES}
    with ThreadPoolExecutor(len(ROLES)) as pool:
        jobs = {
            role: pool.submit(_fetch_labelled, spec, spec.urls[role], targets[role], waits)
            for role in ROLES
        }
    return ShardFiles(
        spec=spec,
        attempt=attempt,
        paths={role: str(path) for role, path in targets.items()},
        sizes={role: job.result() for role, job in jobs.items()},
        staged=True,
    )


def is_local_shard(spec: ShardSpec) -> bool:
    """Return whether the shard's files are read in place."""
    return all(is_local(url) for url in spec.urls.values())


def _fetch_labelled(spec: ShardSpec, url: str, target: Path, waits: Timeouts) -> int:
    try:
        return fetch_file(url, target, waits)
    except LaionError as error:
        raise type(error)(f"{spec.label}: {error}") from error


def fetch_file(url: str, target: Path, timeouts: Timeouts) -> int:
    """Fetch `url` to `target` by way of `target.part` and return the size in bytes.

    The file appears under its name only when it has the size that the server announced and is
    on disk. Raises SourceError or DiskFull.
    """
    shown = hide_credentials(url)
    part = target.with_name(target.name + ".part")
    try:
        with requests.get(
            url,
            stream=True,
            timeout=(timeouts.connect_s, timeouts.read_s),
            headers={"Accept-Encoding": "identity"},
        ) as response:
            _check_status(response.status_code, shown)
            expected = _announced_size(response)
            # A short body is counted and told below, with both sizes.
            response.raw.enforce_content_length = False
            with disk_full_as_error(target.parent, f"{target.name} needs {expected or '?'} bytes"):
                received = _write_body(response, part)
    except (requests.RequestException, TransportError) as error:
        part.unlink(missing_ok=True)
        raise SourceUnreachable(f"the download of {shown} broke off: {_brief(error)}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if expected is not None and received != expected:
        part.unlink()
        raise SourceIncomplete(f"{shown} has {expected:,} bytes, but {received:,} arrived")
    part.replace(target)
    return received


def _write_body(response: requests.Response, part: Path) -> int:
    received = 0
    with part.open("wb") as file:
        while chunk := response.raw.read(CHUNK_BYTES):
            file.write(chunk)
            received += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return received


def _check_status(status: int, shown: str) -> None:
    if status == 200:
        return
    if status in (404, 410):
        raise SourceMissing(f"the source has no file {shown} (HTTP {status})")
    if status in (401, 403):
        raise SourceRefused(f"the source refuses {shown} (HTTP {status}); check the credentials")
    raise SourceUnreachable(f"the source answers HTTP {status} for {shown}")


def _announced_size(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdigit() else None


def _brief(error: Exception) -> str:
    return (
        hide_credentials(str(error)).splitlines()[0][:300] if str(error) else type(error).__name__
    )
