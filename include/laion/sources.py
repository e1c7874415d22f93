"""Where a dataset's files are: any of several base URLs, in any layout its profile knows."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import requests
from urllib3.exceptions import HTTPError as TransportError

from laion.datasets import Layout, Profile
from laion.errors import BadSource, SourceMissing, SourceRefused, SourceUnreachable
from laion.npy import read_npy_header
from laion.shards import ROLES, shard_label
from laion.urls import hide_credentials, is_local, join_url, local_path, url_scheme

SCHEMES = ("http", "https", "file")
NPY_HEAD_BYTES = 16_384

BUSY_STATUSES = (408, 429)
"""Request timeout, too many requests: the file may be there, later."""


@dataclass(frozen=True)
class Source:
    """A base URL together with the layout found there."""

    base: str
    layout: Layout
    digits: int

    def urls(self, shard: int) -> dict[str, str]:
        """Return the URL of each role of a shard."""
        paths = self.layout.paths(shard, self.digits)
        return {role: join_url(self.base, path) for role, path in paths.items()}


def base_urls(profile: Profile, source: str) -> list[str]:
    """Return the base URLs to try, in order: the given ones, else the profile's own.

    `source` is one URL or several separated by commas. Raises BadSource.
    """
    given = [part.strip().rstrip("/") for part in source.split(",") if part.strip()]
    bases = given or [os.path.expandvars(url).rstrip("/") for url in profile.sources]
    bases = [base for base in bases if not base.startswith("$")]
    if not bases:
        raise BadSource(
            f"source: dataset {profile.name!r} has no source of its own; give the base URL of its "
            "files, such as 'https://mirror.example/laion' or 'file:///data/laion'"
        )
    for base in bases:
        if url_scheme(base) not in SCHEMES:
            raise BadSource(
                f"source: {hide_credentials(base)!r} must start with http://, https:// or file:///"
            )
    return bases


def locate_source(
    profile: Profile, source: str, first_shard: int, *, connect_timeout_s: float = 10
) -> Source:
    """Find which base URL and layout has the files of `first_shard`, the smallest planned.

    Raises BadSource, SourceUnreachable (no base answers), SourceRefused, SourceMissing (all
    answer, none has the files).
    """
    tried: list[str] = []
    failures: list[SourceUnreachable | SourceRefused] = []
    for base in base_urls(profile, source):
        try:
            for candidate in _candidates(profile, base, first_shard):
                urls = candidate.urls(first_shard)
                tried.append(hide_credentials(urls["image_embedding"]))
                if all(file_exists(urls[role], timeout_s=connect_timeout_s) for role in ROLES):
                    return candidate
        except (SourceUnreachable, SourceRefused) as error:
            failures.append(error)
    if failures:
        raise failures[0]
    raise SourceMissing(
        f"{shard_label(first_shard)}: the source has no such shard in any layout known for dataset "
        f"{profile.name!r}; tried {', '.join(tried)}. Check `source` and `shards`."
    )


def _candidates(profile: Profile, base: str, shard: int) -> list[Source]:
    seen: dict[tuple[str, ...], Source] = {}
    for layout in profile.layouts:
        for digits in profile.digits:
            # Paddings that agree on the smallest shard agree on all larger ones.
            paths = tuple(layout.paths(shard, digits).values())
            seen.setdefault(paths, Source(base, layout, digits))
    return list(seen.values())


def file_exists(url: str, *, timeout_s: float) -> bool:
    """Return whether `url` names a file. Raises SourceUnreachable, SourceRefused."""
    if is_local(url):
        return local_path(url).is_file()
    shown = hide_credentials(url)
    try:
        status = requests.head(url, timeout=timeout_s, allow_redirects=True).status_code
    except requests.RequestException as error:
        raise SourceUnreachable(
            f"the source does not answer at {shown} ({_cause(error)}); is the URL right and the "
            "host up?"
        ) from error
    if status in (401, 403):
        raise SourceRefused(f"the source refuses {shown} (HTTP {status}); check the credentials")
    if status in BUSY_STATUSES or status >= 500:
        raise SourceUnreachable(f"the source fails on {shown} (HTTP {status})")
    return status == 200


def read_dimension(url: str, *, timeout_s: float) -> int:
    """Return the length of the vectors in an npy file from its first bytes.

    Raises SourceUnreachable, SourceMissing, BadNpy.
    """
    shown = hide_credentials(url)
    if is_local(url):
        try:
            with local_path(url).open("rb") as file:
                head = file.read(NPY_HEAD_BYTES)
        except OSError as error:
            raise SourceMissing(f"the source does not deliver {shown}: {error}") from error
    else:
        try:
            with requests.get(
                url,
                stream=True,
                timeout=timeout_s,
                headers={"Range": f"bytes=0-{NPY_HEAD_BYTES - 1}", "Accept-Encoding": "identity"},
            ) as response:
                if response.status_code not in (200, 206):
                    raise SourceMissing(
                        f"the source does not deliver {shown} (HTTP {response.status_code})"
                    )
                head = response.raw.read(NPY_HEAD_BYTES)
                if len(head) < NPY_HEAD_BYTES:
                    # Only reading on tells a short file from a connection that broke off.
                    head += response.raw.read(NPY_HEAD_BYTES - len(head))
        except (requests.RequestException, TransportError) as error:
            raise SourceUnreachable(f"the source broke off at {shown}: {_cause(error)}") from error
    return read_npy_header(io.BytesIO(head), shown).shape[1]


def _cause(error: Exception) -> str:
    """Return the innermost reason of a requests error: `Connection refused`, `timed out`."""
    while (inner := error.__cause__ or error.__context__) is not None and isinstance(
        inner, Exception
    ):
        error = inner
    return hide_credentials(str(error)) or type(error).__name__
