"""What an answer of a source says, read from its status and headers."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from laion.download.http import causes, retry_after_s, root_cause

CLOCK = "Wed, 01 Nov 2023 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": " 120 "}, 120),
        ({"Retry-After": "Wed, 01 Nov 2023 10:00:30 GMT", "Date": CLOCK}, 30),
        ({"Retry-After": "Wed, 01 Nov 2023 09:00:00 GMT", "Date": CLOCK}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_as_seconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_is_read_against_this_clock_where_the_server_does_not_tell_its_own() -> None:
    wait_s = retry_after_s({"Retry-After": formatdate(time.time() + 1000, usegmt=True)})

    assert wait_s == pytest.approx(1000, abs=60)


def test_the_root_cause_is_the_innermost_and_without_credentials() -> None:
    inner = OSError("cannot reach http://me:pass@host/a?sig=abc")
    outer = RuntimeError("wrapped")
    outer.__cause__ = inner

    assert root_cause(outer) == "cannot reach http://***@host/a?***"


def test_causes_that_go_round_in_a_circle_come_to_an_end() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first

    assert list(causes(first)) == [first, second]
