"""The files of a shard, all at once, each from the first mirror that has it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
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
) -> ShardFiles:
    """Bring the files of a shard into `directory`; those of a `file://` source stay in place.

    Finished files of an earlier try are kept, unfinished ones are gone on with. When a mirror
    does not deliver a file the next is asked. Raises SourceError (see `fetch_file`) or DiskFull,
    naming the shard.
    """
    chosen = options or DownloadOptions()
    counter = progress or Progress(spec.label)
    with (
        open_session(chosen.connections) as session,
        ThreadPoolExecutor(chosen.connections) as pool,
    ):
        jobs = {
            role: pool.submit(_obtain, urls, directory, role, session, chosen, counter)
            for role, urls in spec.urls.items()
        }
    if errors := [error for job in jobs.values() if (error := job.exception()) is not None]:
        raise _labelled(_most_final(errors), spec)
    files = {role: job.result() for role, job in jobs.items()}
    return ShardFiles(
        spec=spec,
        attempt=attempt,
        paths={role: str(file.path) for role, file in files.items()},
        sizes={role: file.size for role, file in files.items()},
        staged=any(file.path.is_relative_to(directory) for file in files.values()),
        origins={role: asdict(file.origin) for role, file in files.items()},
    )


def _obtain(
    urls: list[str],
    directory: Path,
    role: str,
    session: requests.Session,
    options: DownloadOptions,
    progress: Progress,
) -> FetchedFile:
    # The role comes first: a layout may give files in different folders the same name.
    target = directory / f"{role}-{Path(urlsplit(urls[0]).path).name}"
    failures: list[SourceError] = []
    for url in _begun_first(urls, target):
        try:
            if is_local(url):
                return find_local_file(url)
            return fetch_file(url, target, session, options, progress)
        except SourceError as error:
            failures.append(error)
            if len(failures) < len(urls):
                log.warning("%s: %s Asking the next mirror.", progress.label, error)
    # A mirror that may have the file later is worth more tries than one that has not.
    raise next((error for error in failures if error.retryable), failures[0])


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
