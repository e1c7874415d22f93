"""Whether a source has every file of a plan, found out by asking for headers only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests

from laion.download.http import open_session
from laion.download.options import DownloadOptions
from laion.download.remote import stat_file
from laion.errors import SourceError, SourceUnreachable
from laion.shards import ShardSpec
from laion.urls import is_local

GIVE_UP_AFTER = 5
"""Requests that a host, which has answered none yet, may leave unanswered."""


@dataclass(frozen=True)
class Survey:
    """The files of a plan: `sizes` in bytes (None: not told) or `errors`, by shard and role.

    `remote` is what must be fetched; the other files are on this machine.
    """

    sizes: dict[tuple[int, str], int | None] = field(default_factory=dict)
    errors: dict[tuple[int, str], SourceError] = field(default_factory=dict)
    remote: set[tuple[int, str]] = field(default_factory=set)

    @property
    def broken_shards(self) -> dict[int, SourceError]:
        """The shards that lack a file, each with the reason for the first of them."""
        found: dict[int, SourceError] = {}
        for shard, role in sorted(self.errors):
            found.setdefault(shard, self.errors[shard, role])
        return found

    def shard_bytes(self, shard: int) -> int:
        """Return the bytes of a shard's files, as far as they are known."""
        return sum(size or 0 for (number, _), size in self.sizes.items() if number == shard)

    @property
    def fetch_bytes(self) -> int:
        """Bytes that must be fetched, as far as they are known."""
        return sum(self.sizes.get(key) or 0 for key in self.remote)


def survey_files(specs: Sequence[ShardSpec], options: DownloadOptions) -> Survey:
    """Ask the mirrors of every file in turn until one has it, with bounded concurrency.

    A host that does not answer is not asked for ever.
    """
    survey, hosts = Survey(), _Hosts()
    with (
        open_session(options.connections) as session,
        ThreadPoolExecutor(options.connections) as pool,
    ):
        jobs = {
            (spec.shard, role): pool.submit(_find, urls, session, options, hosts)
            for spec in specs
            for role, urls in spec.urls.items()
        }
    for key, job in jobs.items():
        try:
            url, size = job.result()
        except SourceError as error:
            survey.errors[key] = error
        else:
            survey.sizes[key] = size
            if not is_local(url):
                survey.remote.add(key)
    return survey


class _Hosts:
    """Which hosts have answered, and how often the others have not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._silent: Counter[str] = Counter()
        self._errors: dict[str, SourceUnreachable] = {}

    def check(self, host: str) -> None:
        """Raise what the host has done so far when it is not worth asking again."""
        with self._lock:
            if host not in self._answered and self._silent[host] >= GIVE_UP_AFTER:
                raise self._errors[host]

    def note(self, host: str, error: SourceUnreachable | None) -> None:
        with self._lock:
            if error is None:
                self._answered.add(host)
            else:
                self._silent[host] += 1
                self._errors[host] = error


def _find(
    urls: list[str], session: requests.Session, options: DownloadOptions, hosts: _Hosts
) -> tuple[str, int | None]:
    failures: list[SourceError] = []
    for url in urls:
        host = urlsplit(url).netloc
        try:
            hosts.check(host)
            size = stat_file(url, session, options).size
            hosts.note(host, None)
            return url, size
        except SourceUnreachable as error:
            hosts.note(host, error)
            failures.append(error)
        except SourceError as error:
            hosts.note(host, None)
            failures.append(error)
    raise next((error for error in failures if error.retryable), failures[0])
