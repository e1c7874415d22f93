"""Where a dataset's files are: on any of several mirrors, in any layout its profile knows."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from laion.datasets import Layout, Profile
from laion.download.http import open_session
from laion.download.options import DownloadOptions
from laion.download.remote import read_head, read_tail, stat_file
from laion.errors import (
    BadMetadata,
    BadShards,
    BadSource,
    SourceError,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
    SourceUnusable,
)
from laion.metadata import UNREADABLE
from laion.npy import read_npy_header
from laion.s3 import split_uri
from laion.shards import MAX_SHARD, format_shards, shard_label
from laion.urls import hide_credentials, is_s3, join_url, url_scheme

log = logging.getLogger(__name__)

LOOK_AHEAD = 256
"""Shards in a row that a source may lack before the search for more ends."""
PROBED = 8
"""Planned shards by which a source is looked for: it may lack the first ones."""
SCHEMES = ("http", "https", "file", "s3")
NPY_HEAD_BYTES = 16_384
PARQUET_TAIL_BYTES = 262_144
"""Holds the footer of a file of a million rows with fifteen columns."""
PARQUET_END_BYTES = 8
PARQUET_END = b"PAR1"
"""Behind the footer: its length and these letters."""
MAX_FOOTER_BYTES = 64 << 20


@dataclass(frozen=True)
class Source:
    """A base URL together with the layout found there, and the shard by which it was found."""

    base: str
    layout: Layout
    digits: int
    found_by: int

    def urls(self, shard: int) -> dict[str, str]:
        """Return the URL of each role of a shard."""
        paths = self.layout.paths(shard, self.digits)
        return {role: join_url(self.base, path) for role, path in paths.items()}


def base_urls(profile: Profile, source: str) -> list[tuple[str, tuple[Layout, ...]]]:
    """Return the base URLs to try, in order, and the layouts that each may have.

    They are the given ones (`source` is one URL or several separated by commas), in any known
    layout, else the profile's mirrors. Raises BadSource.
    """
    given = [part.strip() for part in source.split(",") if part.strip()]
    if given:
        bases = [(url, profile.known_layouts) for url in given]
    else:
        own = [(os.path.expandvars(mirror.url), mirror) for mirror in profile.mirrors]
        bases = [(url, (mirror.layout,)) for url, mirror in own if not url.startswith("$")]
    if not bases:
        raise BadSource(
            f"source: dataset {profile.name!r} has no source of its own; give the base URL of its "
            "files, such as 'https://mirror.example/laion' or 'file:///data/laion'"
        )
    for base, _ in bases:
        if url_scheme(base) not in SCHEMES:
            raise BadSource(
                f"source: {hide_credentials(base)!r} must start with http://, https://, s3:// or "
                "file:///"
            )
        if is_s3(base):
            split_uri(base)
    return bases


def locate_sources(
    profile: Profile, source: str, shards: Sequence[int], options: DownloadOptions | None = None
) -> list[Source]:
    """Find which base URLs have files of the planned shards, and in which layout; at least one.

    `shards` are sorted. A base is found by the first shard that it has whole, of the first PROBED;
    best first. Raises BadSource, SourceUnreachable (no base answers), SourceRefused, SourceMissing
    (all answer, none has the files).
    """
    asked = shards[:PROBED]
    located = _locate(profile, source, asked, options or DownloadOptions())
    if located.found:
        return located.found
    if located.failures:
        raise located.failures[0]
    if len(shards) == 1:
        what = f"{shard_label(asked[0])}: the source has no such shard"
    else:
        others = f" (the first of {len(shards):,})" if len(shards) > len(asked) else ""
        what = f"shards {format_shards(list(asked))}{others}: the source has none of them whole"
    raise SourceMissing(
        f"{what} in any layout known for dataset {profile.name!r}; tried "
        f"{', '.join(located.tried)}. Check `source` and `shards`."
    )


@dataclass
class _Located:
    """Where a shard was looked for: base URLs that have it, those without, and errors."""

    found: list[Source] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    failures: list[SourceError] = field(default_factory=list)


def _locate(
    profile: Profile, source: str, shards: Sequence[int], chosen: DownloadOptions
) -> _Located:
    located = _Located()
    with open_session(chosen.connections) as session:
        for base, layouts in base_urls(profile, source):
            try:
                # Ascending: what is smaller is not there in any padding, what is larger agrees.
                for candidate in chain.from_iterable(
                    _candidates(base, layouts, profile.digits, shard) for shard in shards
                ):
                    urls = candidate.urls(candidate.found_by)
                    if candidate.found_by == shards[0]:
                        located.tried.append(hide_credentials(next(iter(urls.values()))))
                    if all(_exists(url, session, chosen) for url in urls.values()):
                        located.found.append(candidate)
                        break
                else:
                    located.without.append(hide_credentials(base))
            except (SourceUnreachable, SourceRefused) as error:
                log.warning("%s", error)
                located.failures.append(error)
    return located


def discover_shards(
    profile: Profile, source: str, options: DownloadOptions | None = None
) -> list[int]:
    """Return the shards of a source, from 0 to the last of which it has any file.

    Shards that it lacks before the last count as well, so that whoever plans them finds them
    missing. The search ends where LOOK_AHEAD shards in a row are not there. A mirror that does
    not answer might have more. Raises BadShards when there is not even the first shard, or on one
    of several mirrors only, and as `locate_sources`.
    """
    chosen = options or DownloadOptions()
    located = _locate(profile, source, [0], chosen)
    if located.failures:
        raise located.failures[0]
    if located.without:
        raise BadShards(
            f"dataset {profile.name!r} has no list of its shards, so they are counted from 0, and "
            f"{', '.join(located.without)} has no shard 0 in any layout known for it; tried "
            f"{', '.join(located.tried)}. Check `source`, or give a range such as '1-10'"
        )
    with (
        open_session(chosen.connections) as session,
        ThreadPoolExecutor(chosen.connections) as pool,
    ):

        def has_any(shard: int) -> bool:
            urls = (url for place in located.found for url in place.urls(shard).values())
            return any(is_there(url) for url in urls)

        def is_there(url: str) -> bool:
            try:
                return _exists(url, session, chosen)
            except SourceRefused:
                # As S3 answers for what is not there to who may not list a bucket.
                if len(located.found) == 1:
                    raise
                refused.append(url)
                return False

        refused: list[str] = []
        found, first, at_once = {0}, 1, 4 * chosen.connections
        while first <= min(max(found) + LOOK_AHEAD, MAX_SHARD):
            asked = range(first, min(first + at_once, MAX_SHARD + 1))
            has = pool.map(has_any, asked)
            found |= {shard for shard, is_there in zip(asked, has, strict=True) if is_there}
            first = asked.stop
    shards = list(range(max(found) + 1))
    log.info(
        "The source has shards up to %d; it was asked up to %d, and has nothing beyond%s.",
        shards[-1],
        first - 1,
        f", but refused {len(refused):,} files" if refused else "",
    )
    if holes := sorted(set(shards) - found):
        log.warning(
            "The source has shards up to %d, but nothing of %s: these count as missing.",
            shards[-1],
            format_shards(holes),
        )
    return shards


def read_dimension(url: str, options: DownloadOptions | None = None) -> int:
    """Return the length of the vectors in an npy file from its first bytes.

    Raises SourceError, BadNpy.
    """
    chosen = options or DownloadOptions()
    with open_session(1) as session:
        head = read_head(url, NPY_HEAD_BYTES, session, chosen)
    return read_npy_header(io.BytesIO(head), hide_credentials(url)).shape[1]


def read_schema(url: str, options: DownloadOptions | None = None) -> pa.Schema:
    """Return a Parquet file's columns, from its last bytes. Raises SourceError, BadMetadata."""
    chosen, shown = options or DownloadOptions(), hide_credentials(url)
    with open_session(1) as session:
        tail = read_tail(url, PARQUET_TAIL_BYTES, session, chosen)
        footer_bytes = int.from_bytes(tail[-8:-4], "little") + PARQUET_END_BYTES
        if len(tail) == PARQUET_TAIL_BYTES < footer_bytes and tail.endswith(PARQUET_END):
            if footer_bytes > MAX_FOOTER_BYTES:
                raise SourceUnusable(f"the footer of {shown} has {footer_bytes:,} bytes")
            tail = read_tail(url, footer_bytes, session, chosen)
    try:
        return pq.read_schema(pa.BufferReader(tail))
    except UNREADABLE as error:
        raise BadMetadata(f"{shown} is not a Parquet file: {error}") from error


def _exists(url: str, session: requests.Session, options: DownloadOptions) -> bool:
    try:
        stat_file(url, session, options)
    except SourceMissing:
        return False
    return True


def _candidates(
    base: str, layouts: tuple[Layout, ...], digits: tuple[int, ...], shard: int
) -> list[Source]:
    seen: dict[tuple[str, ...], Source] = {}
    for layout in layouts:
        for width in digits:
            # Paddings that agree on the smallest shard agree on all larger ones.
            paths = tuple(layout.paths(shard, width).values())
            seen.setdefault(paths, Source(base, layout, width, shard))
    return list(seen.values())
