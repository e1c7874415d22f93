"""`python -m laion.mirror`: a copy of a dataset, in a directory or on S3, by the runs' downloads.

Started again, it goes on where it stopped and fetches what has changed. Beside each file lies
`NAME.source`, which says where it is from, its size and its sha256.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from laion.datasets import Profile, load_profile
from laion.download import DownloadOptions, Progress
from laion.download.fetch import is_unchanged
from laion.download.http import open_session
from laion.download.partial import RECORD_SUFFIX, parse_origin
from laion.download.shard import fetch_from_mirrors
from laion.errors import (
    BadSource,
    DiskFull,
    LaionError,
    SourceError,
    StorageRefused,
    StorageUnreachable,
)
from laion.s3 import S3Options, split_uri
from laion.settings import get_settings
from laion.shards import format_shards, parse_shards
from laion.sources import Source, discover_shards, locate_sources
from laion.storage.objects import Objects
from laion.storage.scratch import open_scratch
from laion.urls import hide_credentials, is_local, is_s3

log = logging.getLogger(__name__)

PASSES = 5
FIRST_WAIT_S = 30.0


@dataclass(frozen=True)
class Shelf:
    """A prefix on S3 to which finished files go, so that they take no room on this machine."""

    root: str
    objects: Objects

    def find(
        self, name: str, urls: list[str], session: requests.Session, options: DownloadOptions
    ) -> int | None:
        """Return the size of a file that is there and still what the source has, else None."""
        record = self.objects.read(f"{self.root}/{name}{RECORD_SUFFIX}")
        origin = None if record is None else parse_origin(record)
        url = next((u for u in urls if origin and hide_credentials(u) == origin.url), None)
        if origin is None or url is None or not is_unchanged(origin, url, session, options):
            return None
        return origin.size

    def take(self, path: Path, name: str) -> None:
        """Move a file and its record there."""
        for suffix in ("", RECORD_SUFFIX):
            file = path.with_name(path.name + suffix)
            self.objects.upload(file, f"{self.root}/{name}{suffix}")
            file.unlink()


@dataclass
class Outcome:
    """What a copy has come to: bytes of its files, and why shards are not whole."""

    size: int = 0
    fetched: int = 0
    failed: dict[int, LaionError] = field(default_factory=dict)


def copy_dataset(
    profile: Profile,
    shards: list[int],
    target: Path,
    source: str = "",
    options: DownloadOptions | None = None,
    wait: Callable[[float], None] = time.sleep,
    shelf: Shelf | None = None,
) -> Outcome:
    """Fetch shards into `target`, in the layout of the first mirror that has them.

    With a `shelf`, finished files go there. What does not come but may come later is tried again
    up to five times, after everything else. Raises BadSource, SourceError when there is no source,
    DiskFull.
    """
    chosen = options or DownloadOptions()
    places = locate_sources(profile, source, shards, chosen)
    if any(is_local(place.base) for place in places):
        raise BadSource("source: a directory of this machine needs no copy; use it as it is")
    log.info("%s from %s", profile.name, ", then ".join(hide_credentials(p.base) for p in places))
    outcome, progress = Outcome(), Progress(profile.name)
    left = shards
    with open_session(chosen.connections) as session:
        for number in range(PASSES):
            for shard in left:
                outcome.failed.pop(shard, None)
            failed = _copy_all(left, places, target, session, chosen, progress, shelf)
            outcome.failed.update(failed)
            left = [shard for shard, error in failed.items() if error.retryable]
            if not left or number + 1 == PASSES:
                break
            log.warning("Shards %s are tried again.", format_shards(left))
            wait(FIRST_WAIT_S * 2**number)
    outcome.size, outcome.fetched = progress.here, progress.fetched
    return outcome


def _copy_all(
    shards: list[int],
    places: list[Source],
    target: Path,
    session: requests.Session,
    options: DownloadOptions,
    progress: Progress,
    shelf: Shelf | None,
) -> dict[int, LaionError]:
    """Return why shards are not whole; a full disk ends everything at once."""

    def fetch(shard: int, role: str) -> None:
        name = places[0].layout.paths(shard, places[0].digits)[role]
        path = target / name
        urls = [place.urls(shard)[role] for place in places]
        if shelf and (size := shelf.find(name, urls, session, options)) is not None:
            progress.set_file(path.name, size, size)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch_from_mirrors(urls, path, session, options, progress)
        if shelf:
            shelf.take(path, name)

    failed: dict[int, LaionError] = {}
    with ThreadPoolExecutor(options.connections) as pool:
        jobs = [
            (shard, pool.submit(fetch, shard, role))
            for shard in shards
            for role in places[0].layout.roles
        ]
        for shard, job in jobs:
            try:
                job.result()
            except (SourceError, StorageUnreachable) as error:
                log.warning("Shard %d: %s", shard, error)
                if shard not in failed or failed[shard].retryable:
                    failed[shard] = error
            except (DiskFull, StorageRefused):
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Copy, and return 0 when every shard is whole."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.mirror",
        description="Copy a dataset, which can then be the `source` of runs. "
        "Started again, it goes on where it stopped.",
    )
    parser.add_argument("dataset", help="name of a profile, such as laion400m")
    parser.add_argument("target", help="a directory, or s3://bucket/prefix")
    parser.add_argument("--shards", default="all", help="such as 0-9,12 (default: all)")
    parser.add_argument("--source", default="", help="base URLs, separated by commas")
    parser.add_argument("--connections", type=int, default=6, help="files at once (default: 6)")
    parser.add_argument("--no-checksum", action="store_true", help="take no sha256")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    options = DownloadOptions(connections=args.connections, checksum=not args.no_checksum)
    try:
        profile = load_profile(args.dataset)
        shards = _choose_shards(profile, args.shards, args.source, options)
        with _open_target(args.target) as (directory, shelf):
            outcome = copy_dataset(profile, shards, directory, args.source, options, shelf=shelf)
            free = shutil.disk_usage(directory).free
    except LaionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(_summary(shards, outcome, args.target, free))
    return 1 if outcome.failed else 0


@contextmanager
def _open_target(target: str) -> Iterator[tuple[Path, Shelf | None]]:
    """Yield the directory to fetch into and, for a target on S3, where files go then."""
    if not is_s3(target):
        directory = Path(target)
        directory.mkdir(parents=True, exist_ok=True)
        yield directory, None
        return
    bucket, prefix = split_uri(target)
    root = f"s3://{bucket}/{prefix}".rstrip("/")
    name = f"mirror-{hashlib.sha256(root.encode()).hexdigest()[:8]}"
    with open_scratch(get_settings().scratch_dir, name) as directory:
        yield directory, Shelf(root, Objects(S3Options()))


def _choose_shards(
    profile: Profile, expression: str, source: str, options: DownloadOptions
) -> list[int]:
    if expression != "all":
        return profile.check_shards(parse_shards(expression))
    if profile.shards is None:
        return discover_shards(profile, source, options)
    return profile.all_shards()


def _summary(shards: list[int], outcome: Outcome, target: str, free: int) -> str:
    lines = [
        f"{len(shards) - len(outcome.failed):,} of {len(shards):,} shards are in {target}: "
        f"{outcome.size:,} bytes, {outcome.fetched:,} of them fetched now."
    ]
    lines += _reasons(outcome.failed)
    if not outcome.failed:
        uri = target if is_s3(target) else Path(target).absolute().as_uri()
        lines.append(f"Use it as source: {uri}")
    lines.append(f"{free:,} bytes are free{' on this machine' if is_s3(target) else ''}.")
    return "\n".join(lines)


def _reasons(failed: Mapping[int, LaionError]) -> list[str]:
    if not failed:
        return []
    lines = [f"Not whole: shards {format_shards(list(failed))}."]
    return lines + [f"  {shard}: {error}" for shard, error in sorted(failed.items())]


if __name__ == "__main__":
    sys.exit(main())
