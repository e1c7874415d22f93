"""Looking at a remote file without fetching it: is it there, how large, how does it begin."""

from __future__ import annotations

import requests

from laion.download.http import check_status, request
from laion.download.options import DownloadOptions
from laion.download.partial import Origin
from laion.errors import SourceMissing, SourceUnreachable
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
        try:
            with local_path(url).open("rb") as file:
                return file.read(count)
        except OSError as error:
            raise SourceMissing(f"the source does not deliver {shown}: {error}") from error
    with request(session, "GET", url, options, {"Range": f"bytes=0-{count - 1}"}) as response:
        check_status(response, shown, good=(200, 206))
        announced = response.headers.get("Content-Length", "")
        expected = min(int(announced), count) if announced.isdigit() else 0
        response.raw.enforce_content_length = False
        head: bytes = response.raw.read(count)
    if len(head) < expected:
        raise SourceUnreachable(f"the source broke off at byte {len(head)} of {shown}")
    return head


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
