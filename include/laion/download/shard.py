"""The files of a shard, all at once, each from the first mirror that has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from laion.download.fetch import FetchedFile, fetch_file
from laion.download.http import open_session
from laion.download.options import DownloadOptions
from laion.download.partial import PART_SUFFIX, Origin, read_origin
from laion.download.progress import Progress
from laion.errors import LaionError, SourceError, SourceMissing
from laion.shards import ShardFiles, ShardSpec
from laion.urls import hide_credentials, is_local, local_path

log = logging.getLogger(__name__)


def download_shard(
    spec: ShardSpec,
    attempt: str,
    directory: Path,
    options: DownloadOptions | None = None,
    progress: Progress | None = None,
    store: Callable[[Path], str] = str,
) -> ShardFiles:
    """Bring the files of a shard into `directory`; those of a `file://` source stay in place.

    Finished files of an earlier try are kept, unfinished ones are gone on with. When a mirror
    does not deliver a file the next is asked. `store` is called with each file when it is there
    and says where tasks find it. Raises SourceError (see `fetch_file`) or DiskFull, naming the
    shard, and what `store` raises.
    """
    chosen = options or DownloadOptions()
    counter = progress or Progress(spec.label)

    def fetch(role: str, urls: list[str]) -> tuple[FetchedFile, str]:
        target, sha256 = _target(directory, role, urls), spec.sha256.get(role, "")
        file = fetch_from_mirrors(urls, target, session, chosen, counter, sha256)
        return file, store(file.path)

    with (
        open_session(chosen.connections) as session,
        ThreadPoolExecutor(chosen.connections) as pool,
    ):
        jobs = {role: pool.submit(fetch, role, urls) for role, urls in spec.urls.items()}
    if errors := [error for job in jobs.values() if (error := job.exception()) is not None]:
        raise _labelled(_most_final(errors), spec)
    files = {role: job.result() for role, job in jobs.items()}
    return ShardFiles(
        spec=spec,
        attempt=attempt,
        paths={role: place for role, (_, place) in files.items()},
        sizes={role: file.size for role, (file, _) in files.items()},
        staged=any(file.path.is_relative_to(directory) for file, _ in files.values()),
        origins={role: asdict(file.origin) for role, (file, _) in files.items()},
    )


def changed_files(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the roles whose file has other bytes than before, as far as both times tell.

    Both are the `origins` of downloads, by role.
    """
    return [
        role
        for role, origin in now.items()
        if role in before
        and any(
            origin.get(key) and before[role].get(key) and origin[key] != before[role][key]
            for key in ("sha256", "size")
        )
    ]


def fetch_from_mirrors(
    urls: list[str],
    target: Path,
    session: requests.Session,
    options: DownloadOptions,
    progress: Progress,
    sha256: str = "",
) -> FetchedFile:
    """Fetch a file to `target` from the first of `urls` that delivers it; see `fetch_file`.

    A `file://` URL stays in place. When none delivers, the error of one that may later is raised,
    if there is such.
    """
    failures: list[SourceError] = []
    for url in _begun_first(urls, target):
        try:
            if is_local(url):
                return find_local_file(url)
            return fetch_file(url, target, session, options, progress, sha256)
        except SourceError as error:
            failures.append(error)
            if len(failures) < len(urls):
                log.warning("%s: %s Asking the next mirror.", progress.label, error)
    # A mirror that may have the file later is worth more tries than one that has not.
    raise next((error for error in failures if error.retryable), failures[0])


def _target(directory: Path, role: str, urls: list[str]) -> Path:
    # The role comes first: a layout may give files in different folders the same name.
    return directory / f"{role}-{Path(urlsplit(urls[0]).path).name}"


def _begun_first(urls: list[str], target: Path) -> list[str]:
    """Return the mirrors in order, but first the one that an unfinished file is from."""
    begun = read_origin(target.with_name(target.name + PART_SUFFIX)) or read_origin(target)
    return sorted(urls, key=lambda url: begun is None or hide_credentials(url) != begun.url)


def _most_final(errors: list[BaseException]) -> BaseException:
    """Return the error by which the shard is judged: one that does not pass comes first."""
    return min(errors, key=lambda error: isinstance(error, LaionError) and error.retryable)


def _labelled(error: BaseException, spec: ShardSpec) -> BaseException:
    if isinstance(error, LaionError):
        error.args = (f"{spec.label}: {error}",)
    return error


def find_local_file(url: str) -> FetchedFile:
    """Return the file of a `file://` URL where it is. Raises SourceMissing."""
    path = local_path(url)
    if not path.is_file():
        raise SourceMissing(f"the source has no file {path}")
    size = path.stat().st_size
    return FetchedFile(path, size, Origin(hide_credentials(url), size))
