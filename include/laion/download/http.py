"""HTTP as the downloads use it: one session, and every bad answer as a type."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as TransportError

from laion import __version__
from laion.download.options import DownloadOptions
from laion.errors import (
    SourceBusy,
    SourceError,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
    SourceUnusable,
)
from laion.urls import hide_credentials, is_s3

MAX_REDIRECTS = 10
BUSY_STATUSES = (408, 425, 429, 503)
"""Request timeout, too early, too many requests, unavailable: later may be better."""

BAD_URL_ERRORS = (
    requests.TooManyRedirects,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
)


def open_session(connections: int) -> requests.Session:
    """Return a session that keeps up to `connections` open per host. The caller closes it."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=8, pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.max_redirects = MAX_REDIRECTS
    session.headers["User-Agent"] = f"laion-clickhouse/{__version__}"
    # A file is stored as it is served; ranges of a compressed body would be of no use.
    session.headers["Accept-Encoding"] = "identity"
    return session


@contextmanager
def request(
    session: requests.Session,
    method: str,
    url: str,
    options: DownloadOptions,
    headers: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """Yield the answer, its body not read yet. An `s3://` URL is asked for as S3 wants it.

    What breaks while the block reads becomes SourceUnreachable, a URL or redirect that leads
    nowhere SourceUnusable. Statuses are the caller's to judge: see `check_status`.
    """
    shown, auth = hide_credentials(url), None
    if is_s3(url):
        url, auth = options.s3.object_url(url), options.s3.signature()
    try:
        with session.request(
            method,
            url,
            auth=auth,
            stream=True,
            allow_redirects=True,
            timeout=options.timeouts,
            headers=dict(headers or {}),
        ) as response:
            yield response
    except BAD_URL_ERRORS as error:
        raise SourceUnusable(f"{shown} leads nowhere: {root_cause(error)}") from error
    except (requests.RequestException, TransportError) as error:
        if any(isinstance(e, ssl.SSLCertVerificationError) for e in causes(error)):
            raise SourceUnusable(
                f"the certificate of {shown} is not trusted: {root_cause(error)}"
            ) from error
        raise SourceUnreachable(
            f"the source does not answer at {shown} ({root_cause(error)}); is the URL right and "
            "the host up?"
        ) from error


def check_status(response: requests.Response, shown: str, good: tuple[int, ...] = (200,)) -> None:
    """Raise the SourceError that the status stands for unless it is one of `good`."""
    status = response.status_code
    if status in good:
        return
    region = response.headers.get("x-amz-bucket-region", "")
    if region and status in (301, 307, 400):
        raise SourceUnusable(
            f"S3 says that {shown} lies in region {region}; name it as region_name in the extra of "
            "the Airflow connection"
        )
    raise status_error(status, shown, retry_after_s(response.headers))


def status_error(status: int, shown: str, wait_s: float | None) -> SourceError:
    """Return the error that an HTTP status stands for."""
    if status in (404, 410):
        return SourceMissing(f"the source has no file {shown} (HTTP {status})")
    if status in (401, 403, 407):
        return SourceRefused(f"the source refuses {shown} (HTTP {status}); check the credentials")
    if status in BUSY_STATUSES:
        told = "" if wait_s is None else f" and asks to wait {wait_s:,.0f} s"
        return SourceBusy(f"the source is busy: HTTP {status} for {shown}{told}", wait_s)
    if status >= 500:
        return SourceUnreachable(f"the source fails on {shown} (HTTP {status})")
    return SourceUnusable(f"the source answers HTTP {status} for {shown}, which is no file")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a `Retry-After` asks for, given as seconds or as a date.

    A date is read against the server's own clock where the answer tells it.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = _timestamp(value)
    if until is None:
        return None
    now = _timestamp(headers.get("Date", "")) or time.time()
    return max(0.0, until - now)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, outermost first; urllib3 hides some in attributes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = current.__cause__ or current.__context__
        if inner is None:
            inner = next(
                (a for a in (getattr(current, "reason", None), *current.args) if _is_error(a)), None
            )
        current = inner


def root_cause(error: BaseException) -> str:
    """Return the innermost reason in one line: `Connection refused`, `timed out`."""
    *_, innermost = causes(error)
    lines = hide_credentials(str(innermost)).splitlines()
    return lines[0][:300] if lines else type(innermost).__name__


def _is_error(value: object) -> bool:
    return isinstance(value, Exception)


def _timestamp(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
