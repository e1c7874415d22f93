"""Looking at a remote file without fetching it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import requests

from laion.download.remote import read_tail, stat_file
from laion.errors import (
    SourceBusy,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
    SourceUnusable,
)
from tests.unit.download.conftest import OPTIONS
from tests.unit.mirrors import Mirror, VersionedFile, answer, in_turn, unused_url


def test_a_file_that_is_served_tells_size_and_version(
    mirror: Mirror, session: requests.Session
) -> None:
    mirror.fail("a.npy", VersionedFile(b"x" * 500, etag='"v7"'), "")

    found = stat_file(f"{mirror.url}/a.npy", session, OPTIONS)

    assert (found.size, found.etag) == (500, '"v7"')
    assert mirror.requests == ["HEAD /a.npy"]


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_knows_no_head_is_asked_otherwise(
    mirror: Mirror, session: requests.Session, status: int
) -> None:
    mirror.fail("a.npy", in_turn(answer(status), VersionedFile(b"x" * 500)), "")

    assert stat_file(f"{mirror.url}/a.npy", session, OPTIONS).size == 500


def test_a_file_of_this_machine_is_there_and_a_directory_is_none(
    session: requests.Session, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(b"abc")

    assert stat_file((tmp_path / "a.npy").as_uri(), session, OPTIONS).size == 3
    with pytest.raises(SourceMissing):
        stat_file(tmp_path.as_uri(), session, OPTIONS)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, SourceRefused),
        (403, SourceRefused),
        (404, SourceMissing),
        (429, SourceBusy),
        (500, SourceUnreachable),
        (503, SourceBusy),
    ],
)
def test_a_bad_answer_is_typed(
    mirror: Mirror, session: requests.Session, status: int, error: type[Exception]
) -> None:
    mirror.fail("a.npy", answer(status), "")

    with pytest.raises(error, match=f"HTTP {status}"):
        stat_file(f"{mirror.url}/a.npy", session, OPTIONS)


def test_a_refused_connection_is_typed_and_says_why(session: requests.Session) -> None:
    with pytest.raises(SourceUnreachable, match="Connection refused"):
        stat_file(f"{unused_url()}/a.npy", session, OPTIONS)


def test_a_server_that_does_not_answer_in_time_is_unreachable(
    mirror: Mirror, session: requests.Session
) -> None:
    mirror.fail("a.npy", lambda handler: handler.mirror.closing.wait(10), "HEAD")

    with pytest.raises(SourceUnreachable, match="timed out"):
        stat_file(f"{mirror.url}/a.npy", session, replace(OPTIONS, read_timeout_s=0.2))


class TestTail:
    @pytest.mark.parametrize(
        ("size", "tail"), [(500, b"x" * 97 + b"end"), (50, b"x" * 47 + b"end")]
    )
    def test_it_is_the_end_of_a_file_or_all_of_a_short_one(
        self, mirror: Mirror, session: requests.Session, size: int, tail: bytes
    ) -> None:
        mirror.fail("a.npy", VersionedFile(b"x" * (size - 3) + b"end"), "")

        assert read_tail(f"{mirror.url}/a.npy", 100, session, OPTIONS) == tail

    def test_a_file_of_this_machine_is_read_in_place(
        self, session: requests.Session, tmp_path: Path
    ) -> None:
        (tmp_path / "a.npy").write_bytes(b"xxxend")

        assert read_tail((tmp_path / "a.npy").as_uri(), 3, session, OPTIONS) == b"end"

    def test_a_server_without_ranges_gives_only_short_files(
        self, mirror: Mirror, session: requests.Session
    ) -> None:
        mirror.fail("a.npy", VersionedFile(b"x" * 500, ranges=False), "")

        assert read_tail(f"{mirror.url}/a.npy", 500, session, OPTIONS) == b"x" * 500
        with pytest.raises(SourceUnusable, match="only as a whole"):
            read_tail(f"{mirror.url}/a.npy", 100, session, OPTIONS)
