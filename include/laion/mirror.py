"""`python -m laion.mirror`: a copy of a dataset on this machine, by the downloads of the runs.

Started again, it goes on where it stopped and fetches what has changed. Beside each file lies
`NAME.source`, which says where it is from, its size and its sha256.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from laion.datasets import Profile, load_profile
from laion.download import DownloadOptions, Progress
from laion.download.http import open_session
from laion.download.shard import fetch_from_mirrors
from laion.errors import BadSource, DiskFull, LaionError, SourceError
from laion.shards import format_shards, parse_shards
from laion.sources import Source, discover_shards, locate_sources
from laion.urls import hide_credentials, is_local

log = logging.getLogger(__name__)

PASSES = 5
FIRST_WAIT_S = 30.0


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
) -> Outcome:
    """Fetch shards into `target`, in the layout of the first mirror that has them.

    What does not come but may come later is tried again up to five times, after everything else.
    Raises BadSource, SourceError when there is no source, DiskFull.
    """
    chosen = options or DownloadOptions()
    places = locate_sources(profile, source, shards[0], chosen)
    if any(is_local(place.base) for place in places):
        raise BadSource("source: a directory of this machine needs no copy; use it as it is")
    log.info("%s from %s", profile.name, ", then ".join(hide_credentials(p.base) for p in places))
    outcome, progress = Outcome(), Progress(profile.name)
    left = shards
    with open_session(chosen.connections) as session:
        for number in range(PASSES):
            for shard in left:
                outcome.failed.pop(shard, None)
            failed = _copy_all(left, places, target, session, chosen, progress)
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
) -> dict[int, LaionError]:
    """Return why shards are not whole; a full disk ends everything at once."""

    def fetch(shard: int, role: str) -> None:
        path = target / places[0].layout.paths(shard, places[0].digits)[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        urls = [place.urls(shard)[role] for place in places]
        fetch_from_mirrors(urls, path, session, options, progress)

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
            except SourceError as error:
                log.warning("Shard %d: %s", shard, error)
                if shard not in failed or failed[shard].retryable:
                    failed[shard] = error
            except DiskFull:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Copy, and return 0 when every shard is whole."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.mirror",
        description="Copy a dataset to a directory, which can then be the `source` of runs. "
        "Started again, it goes on where it stopped.",
    )
    parser.add_argument("dataset", help="name of a profile, such as laion400m")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--shards", default="all", help="such as 0-9,12 (default: all)")
    parser.add_argument("--source", default="", help="base URLs, separated by commas")
    parser.add_argument("--connections", type=int, default=6, help="files at once (default: 6)")
    parser.add_argument("--no-checksum", action="store_true", help="take no sha256")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO, stream=sys.stderr)
    options = DownloadOptions(connections=args.connections, checksum=not args.no_checksum)
    try:
        profile = load_profile(args.dataset)
        args.directory.mkdir(parents=True, exist_ok=True)
        shards = _choose_shards(profile, args.shards, args.source, options)
        outcome = copy_dataset(profile, shards, args.directory, args.source, options)
    except LaionError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(_summary(shards, outcome, args.directory))
    return 1 if outcome.failed else 0


def _choose_shards(
    profile: Profile, expression: str, source: str, options: DownloadOptions
) -> list[int]:
    if expression != "all":
        return profile.check_shards(parse_shards(expression))
    if profile.shards is None:
        return discover_shards(profile, source, options)
    return profile.all_shards()


def _summary(shards: list[int], outcome: Outcome, directory: Path) -> str:
    lines = [
        f"{len(shards) - len(outcome.failed):,} of {len(shards):,} shards are in {directory}: "
        f"{outcome.size:,} bytes, {outcome.fetched:,} of them fetched now."
    ]
    lines += _reasons(outcome.failed)
    if not outcome.failed:
        lines.append(f"Use it as source: {directory.absolute().as_uri()}")
    lines.append(f"{shutil.disk_usage(directory).free:,} bytes are free.")
    return "\n".join(lines)


def _reasons(failed: Mapping[int, LaionError]) -> list[str]:
    if not failed:
        return []
    lines = [f"Not whole: shards {format_shards(list(failed))}."]
    return lines + [f"  {shard}: {error}" for shard, error in sorted(failed.items())]


if __name__ == "__main__":
    sys.exit(main())
