"""Looking at a remote file without fetching it: how large is it, how does it begin and end."""

from __future__ import annotations

import requests

from laion.download.http import check_status, request
from laion.download.options import DownloadOptions
from laion.download.partial import Origin
from laion.errors import SourceMissing, SourceUnreachable, SourceUnusable
from laion.urls import hide_credentials, is_local, local_path

NO_HEAD_STATUSES = (405, 501)


def stat_file(url: str, session: requests.Session, options: DownloadOptions) -> Origin:
    """Return size and version of a file. Raises SourceMissing and other SourceErrors."""
    shown = hide_credentials(url)
    if is_local(url):
        path = local_path(url)
        if not path.is_file():
            raise SourceMissing(f"the source has no file {path}")
        return Origin(shown, path.stat().st_size)
    with request(session, "HEAD", url, options) as response:
        if response.status_code not in NO_HEAD_STATUSES:
            check_status(response, shown)
            return origin_of(response, shown)
    # The headers of an answer that is not read to its end tell the same.
    with request(session, "GET", url, options) as response:
        check_status(response, shown)
        return origin_of(response, shown)


def read_head(url: str, count: int, session: requests.Session, options: DownloadOptions) -> bytes:
    """Return the first `count` bytes of a file, or all of a shorter one. Raises SourceError."""
    shown = hide_credentials(url)
    if is_local(url):
        return _read_local(url, 0, count)
    with request(session, "GET", url, options, {"Range": f"bytes=0-{count - 1}"}) as response:
        check_status(response, shown, good=(200, 206))
        announced = response.headers.get("Content-Length", "")
        expected = min(int(announced), count) if announced.isdigit() else 0
        response.raw.enforce_content_length = False
        head: bytes = response.raw.read(count)
    if len(head) < expected:
        raise SourceUnreachable(f"the source broke off at byte {len(head)} of {shown}")
    return head


def read_tail(url: str, count: int, session: requests.Session, options: DownloadOptions) -> bytes:
    """Return the last `count` bytes of a file, or all of a shorter one.

    Raises SourceError; SourceUnusable when a web server gives parts of none and the file is longer.
    """
    origin = stat_file(url, session, options)
    if origin.size is None:
        raise SourceUnusable(f"the source does not say how large {origin.url} is")
    start = max(0, origin.size - count)
    if is_local(url):
        return _read_local(url, start, count)
    with request(session, "GET", url, options, {"Range": f"bytes={start}-"}) as response:
        check_status(response, origin.url, good=(200, 206))
        if response.status_code == 200 and start:
            raise SourceUnusable(f"the source gives {origin.url} only as a whole")
        tail: bytes = response.raw.read(count)
    if len(tail) < origin.size - start:
        raise SourceUnreachable(f"the source broke off at byte {start + len(tail)} of {origin.url}")
    return tail


def origin_of(response: requests.Response, shown: str, size: int | None = None) -> Origin:
    """Return what an answer's headers say of the file; `size` where they are of a part of it."""
    announced = response.headers.get("Content-Length", "")
    if size is None and announced.isdigit():
        size = int(announced)
    return Origin(
        url=shown,
        size=size,
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
    )


def _read_local(url: str, start: int, count: int) -> bytes:
    try:
        with local_path(url).open("rb") as file:
            file.seek(start)
            return file.read(count)
    except OSError as error:
        shown = hide_credentials(url)
        raise SourceMissing(f"the source does not deliver {shown}: {error}") from error
