"""Sources that misbehave: after each, the right file or a typed error, and nothing left behind."""

from __future__ import annotations

import contextlib
import gzip
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from laion.download.partial import PART_SUFFIX, RECORD_SUFFIX
from laion.errors import (
    LaionError,
    SourceBusy,
    SourceIncomplete,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
    SourceUnusable,
)
from tests.tls_proxy import tls_in_front_of
from tests.unit.download.conftest import OPTIONS, Fetch
from tests.unit.mirrors import (
    Fault,
    Mirror,
    VersionedFile,
    answer,
    in_turn,
    redirect,
    send_part,
    stall_after,
    unused_url,
)

BODY = b"\x93NUMPY" + random.Random(1).randbytes(900_000)
PAGE = b"<!doctype html><title>404</title>"
SECRET = "s3cr3t"
GOOD = VersionedFile(BODY)
IMPATIENT = replace(OPTIONS, read_timeout_s=0.2, tries=2)


@dataclass(frozen=True)
class Outcome:
    """What a fault must lead to: an error, or the file (None). `keeps` a part to go on with."""

    fault: Fault
    error: type[LaionError] | None
    keeps: bool = False


def busy(**headers: str) -> Fault:
    return answer(429, {name.replace("_", "-"): value for name, value in headers.items()})


def in_an_hour() -> str:
    return formatdate(time.time() + 3600, usegmt=True)


FAULTS: dict[str, Callable[[], Outcome]] = {
    "404": lambda: Outcome(answer(404), SourceMissing),
    "410": lambda: Outcome(answer(410), SourceMissing),
    "401": lambda: Outcome(answer(401), SourceRefused),
    "403": lambda: Outcome(answer(403), SourceRefused),
    "400": lambda: Outcome(answer(400), SourceUnusable),
    "416 to a plain request": lambda: Outcome(answer(416), SourceUnusable),
    "500": lambda: Outcome(answer(500), SourceUnreachable),
    "500, then the file": lambda: Outcome(in_turn(answer(500), GOOD), None),
    "429": lambda: Outcome(answer(429), SourceBusy),
    "429, 0 seconds, then the file": lambda: Outcome(in_turn(busy(Retry_After="0"), GOOD), None),
    "429, an hour": lambda: Outcome(busy(Retry_After="3600"), SourceBusy),
    "429, until a date long past, then the file": lambda: Outcome(
        in_turn(busy(Retry_After="Wed, 01 Nov 2023 10:00:00 GMT"), GOOD), None
    ),
    "429, until a date in an hour": lambda: Outcome(busy(Retry_After=in_an_hour()), SourceBusy),
    "429, nonsense": lambda: Outcome(busy(Retry_After="soon"), SourceBusy),
    "503, 0 seconds, then the file": lambda: Outcome(
        in_turn(answer(503, {"Retry-After": "0"}), GOOD), None
    ),
    "reset at the first byte": lambda: Outcome(
        VersionedFile(BODY, resets=[0] * 9), SourceUnreachable
    ),
    "reset, then the rest": lambda: Outcome(VersionedFile(BODY, resets=[600_000]), None),
    "truncated once": lambda: Outcome(VersionedFile(BODY, cuts=[600_000]), None),
    "truncated always": lambda: Outcome(
        send_part(BODY[:100_000], announced=len(BODY)), SourceIncomplete, keeps=True
    ),
    "nothing of what was announced": lambda: Outcome(
        send_part(b"", announced=5000), SourceIncomplete
    ),
    "longer than announced": lambda: Outcome(send_part(BODY + b"more", announced=len(BODY)), None),
    "no length, whole": lambda: Outcome(send_part(BODY, announced=None), None),
    "no ranges, reset once": lambda: Outcome(
        VersionedFile(BODY, ranges=False, resets=[600_000]), None
    ),
    "another ETag at every request": lambda: Outcome(ever_changing(), None),
    "another ETag at every request, reset": lambda: Outcome(
        ever_changing(cuts=[600_000, 500_000]), None
    ),
    "another ETag at every request, If-Range ignored": lambda: Outcome(
        ever_changing(cuts=[600_000], heeds_if_range=False), None
    ),
    "web page with status 200": lambda: Outcome(
        send_part(PAGE, len(PAGE), {"Content-Type": "text/html; charset=utf-8"}), SourceUnusable
    ),
    "web page that says it is data": lambda: Outcome(
        send_part(PAGE, len(PAGE), {"Content-Type": "application/octet-stream"}), SourceUnusable
    ),
    "gzip": lambda: Outcome(
        VersionedFile(gzip.compress(BODY), headers={"Content-Encoding": "gzip"}), SourceUnusable
    ),
    "zero bytes": lambda: Outcome(VersionedFile(b""), SourceUnusable),
    "stalled": lambda: Outcome(
        stall_after(BODY[:300_000], announced=len(BODY)), SourceUnreachable, keeps=True
    ),
    "stalled once": lambda: Outcome(
        in_turn(stall_after(BODY[:300_000], len(BODY), {"ETag": '"v1"'}), GOOD), None
    ),
    "redirect loop": lambda: Outcome(redirect("/a.npy"), SourceUnusable),
    "redirect to nowhere": lambda: Outcome(redirect("ftp://host/a.npy"), SourceUnusable),
    "redirect to a dead host": lambda: Outcome(redirect(unused_url()), SourceUnreachable),
    "no HTTP": lambda: Outcome(not_http, SourceUnreachable),
}


def ever_changing(**how: object) -> Fault:
    served = VersionedFile(BODY, **how)

    def fault(handler: object) -> None:
        served.etag = f'"{random.random()}"'
        served(handler)

    return fault


def not_http(handler: object) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


@pytest.mark.parametrize("name", FAULTS)
def test_the_right_file_or_a_typed_error_and_nothing_else(
    mirror: Mirror, fetch: Fetch, target: Path, name: str
) -> None:
    outcome = FAULTS[name]()
    mirror.fail("a.npy", outcome.fault)
    url = mirror.url_with(f"me:{SECRET}@") + "/a.npy"

    if outcome.error is None:
        assert fetch(url, IMPATIENT).path.read_bytes() == BODY
        left = {"a.npy", "a.npy" + RECORD_SUFFIX}
    else:
        with pytest.raises(outcome.error) as caught:
            fetch(url, IMPATIENT)
        assert type(caught.value) is outcome.error
        assert SECRET not in str(caught.value)
        part = "a.npy" + PART_SUFFIX
        left = {part, part + RECORD_SUFFIX} if outcome.keeps else set()
    assert {path.name for path in target.iterdir()} == left


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_that_is_logged_tells_the_credentials(
    mirror: Mirror, fetch: Fetch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.fail(f"a.npy?token={SECRET}", FAULTS[name]().fault)

    with contextlib.suppress(LaionError):
        fetch(mirror.url_with(f"me:{SECRET}@") + f"/a.npy?token={SECRET}", IMPATIENT)

    assert SECRET not in "".join(r.getMessage() for r in caplog.records if "laion" in r.name)


def test_an_older_complete_file_survives_a_failed_download(
    mirror: Mirror, fetch: Fetch, target: Path
) -> None:
    (target / "a.npy").write_bytes(b"whole")
    mirror.fail("a.npy", answer(404))

    with pytest.raises(SourceMissing):
        fetch(f"{mirror.url}/a.npy")
    assert (target / "a.npy").read_bytes() == b"whole"


def test_a_redirect_to_another_host_is_followed_without_the_password(
    mirror: Mirror, fetch: Fetch, shard_directory: Path
) -> None:
    with Mirror(shard_directory, host="127.0.0.2") as other:
        other.fail("b.npy", GOOD)
        mirror.fail("a.npy", redirect(f"{other.url}/b.npy"))

        fetched = fetch(mirror.url_with(f"me:{SECRET}@") + "/a.npy")

        assert fetched.path.read_bytes() == BODY
        assert "Authorization" in mirror.headers[0]
        assert "Authorization" not in other.headers[0]


def test_a_source_on_ipv6_only_is_fetched_from(fetch: Fetch, shard_directory: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with Mirror(shard_directory, host="::1") as mirror:
        mirror.fail("a.npy", GOOD)

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY


def test_a_source_is_fetched_over_tls_if_its_certificate_is_trusted(
    mirror: Mirror, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.fail("a.npy", GOOD)
    with tls_in_front_of(urlsplit(mirror.url).port or 0, tmp_path) as (port, authority):
        with pytest.raises(SourceUnusable, match=r"certificate of https://.* is not trusted"):
            fetch(f"https://127.0.0.1:{port}/a.npy")

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        assert fetch(f"https://127.0.0.1:{port}/a.npy").path.read_bytes() == BODY


def test_a_name_that_does_not_resolve_is_typed(fetch: Fetch, target: Path) -> None:
    with pytest.raises(SourceUnreachable, match=r"mirror\.invalid"):
        fetch("http://mirror.invalid/a.npy", IMPATIENT)
    assert list(target.iterdir()) == []


def test_a_refused_connection_is_typed_and_says_why(fetch: Fetch, target: Path) -> None:
    with pytest.raises(SourceUnreachable, match="Connection refused"):
        fetch(f"{unused_url()}/a.npy")
    assert list(target.iterdir()) == []


def test_a_busy_source_tells_how_long_to_wait(mirror: Mirror, fetch: Fetch) -> None:
    mirror.fail("a.npy", busy(Retry_After="3600"))

    with pytest.raises(SourceBusy, match="3,600 s") as caught:
        fetch(f"{mirror.url}/a.npy")
    assert caught.value.wait_s == 3600
