"""One file: resumed where it can be, begun again where it must be, never wrong."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from laion.download import DownloadOptions, fetch_file
from laion.download.partial import PART_SUFFIX, RECORD_SUFFIX, PartialFile, read_origin
from laion.errors import ChecksumMismatch, DiskFull, SourceIncomplete
from tests.unit.download.conftest import OPTIONS, Fetch
from tests.unit.mirrors import Mirror, VersionedFile, answer, in_turn, send_part, stall_after

BODY = b"\x93NUMPY" + random.Random(1).randbytes(3_000_000)
OTHER = b"\x93NUMPY" + random.Random(2).randbytes(2_500_000)
ONE_TRY = replace(OPTIONS, tries=1)


def leave_part(fetch: Fetch, mirror: Mirror, at: int, **version: str) -> None:
    """Let a first try end after `at` bytes."""
    mirror.fail("a.npy", VersionedFile(BODY, cuts=[at, 0], **version), "")
    with pytest.raises(SourceIncomplete):
        fetch(f"{mirror.url}/a.npy", ONE_TRY)


def ranges_asked(mirror: Mirror) -> list[str]:
    return [headers["Range"] for headers in mirror.headers if "Range" in headers]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


class TestComplete:
    def test_the_file_arrives_with_a_record_of_what_it_is(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY))

        fetched = fetch(f"{mirror.url}/a.npy")

        assert fetched.path.read_bytes() == BODY
        assert fetched.size == len(BODY)
        assert fetched.origin.sha256 == hashlib.sha256(BODY).hexdigest()
        assert fetched.origin.etag == '"v1"'
        assert read_origin(fetched.path) == fetched.origin
        assert names(target) == ["a.npy", "a.npy" + RECORD_SUFFIX]

    def test_without_checksum_the_record_has_none(self, mirror: Mirror, fetch: Fetch) -> None:
        mirror.fail("a.npy", VersionedFile(BODY))

        assert fetch(f"{mirror.url}/a.npy", replace(OPTIONS, checksum=False)).origin.sha256 == ""

    def test_the_record_holds_no_credentials(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        mirror.fail("a.npy?sig=s3cr3t", VersionedFile(BODY))

        fetch(mirror.url_with("me:s3cr3t@") + "/a.npy?sig=s3cr3t")

        assert "s3cr3t" not in (target / ("a.npy" + RECORD_SUFFIX)).read_text()

    def test_a_finished_file_is_not_fetched_again(self, mirror: Mirror, fetch: Fetch) -> None:
        mirror.fail("a.npy", VersionedFile(BODY), "")
        first = fetch(f"{mirror.url}/a.npy")
        mirror.requests.clear()

        assert fetch(f"{mirror.url}/a.npy") == first
        assert mirror.requests == ["HEAD /a.npy"]

    @pytest.mark.parametrize("new", [VersionedFile(OTHER), VersionedFile(BODY, etag='"v2"')])
    def test_a_finished_file_that_has_changed_at_the_source_is_fetched_again(
        self, mirror: Mirror, fetch: Fetch, new: VersionedFile
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY), "")
        fetch(f"{mirror.url}/a.npy")
        mirror.fail("a.npy", new, "")

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == new.body

    def test_a_finished_file_of_the_wrong_length_is_fetched_again(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY), "")
        first = fetch(f"{mirror.url}/a.npy")
        os.truncate(first.path, 10)

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY


class TestResume:
    def test_it_goes_on_where_the_last_try_stopped(self, mirror: Mirror, fetch: Fetch) -> None:
        leave_part(fetch, mirror, at=2_000_000)

        fetched = fetch(f"{mirror.url}/a.npy")

        assert fetched.path.read_bytes() == BODY
        assert fetched.origin.sha256 == hashlib.sha256(BODY).hexdigest()
        assert ranges_asked(mirror)[-1] == "bytes=2000000-"
        assert mirror.headers[-1]["If-Range"] == '"v1"'

    def test_last_modified_serves_where_there_is_no_strong_etag(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        date = "Wed, 01 Nov 2023 10:00:00 GMT"
        leave_part(fetch, mirror, at=2_000_000, etag='W/"v1"', last_modified=date)

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY
        assert mirror.headers[-1]["If-Range"] == date

    def test_without_a_validator_the_file_is_begun_again(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000, etag="")

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY
        assert ranges_asked(mirror) == []

    def test_a_server_without_ranges_sends_all_of_it_again(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        mirror.fail("a.npy", VersionedFile(BODY, ranges=False))

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY

    @pytest.mark.parametrize("heeds_if_range", [True, False])
    def test_a_file_that_has_changed_meanwhile_is_never_mixed(
        self, mirror: Mirror, fetch: Fetch, heeds_if_range: bool
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        mirror.fail("a.npy", VersionedFile(OTHER, etag='"v2"', heeds_if_range=heeds_if_range), "")

        fetched = fetch(f"{mirror.url}/a.npy")

        assert fetched.path.read_bytes() == OTHER
        assert fetched.origin.sha256 == hashlib.sha256(OTHER).hexdigest()

    def test_a_file_that_has_become_shorter_than_the_part_is_begun_again(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        leave_part(fetch, mirror, at=3_000_000)
        short = VersionedFile(BODY[:1000], heeds_if_range=False)
        mirror.fail("a.npy", short, "")

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY[:1000]

    def test_an_answer_for_another_range_is_not_taken(self, mirror: Mirror, fetch: Fetch) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        wrong = answer(206, {"Content-Range": f"bytes 0-9/{len(BODY)}", "ETag": '"v1"'})
        mirror.fail("a.npy", in_turn(wrong, VersionedFile(BODY)))

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY

    def test_a_part_that_is_whole_needs_no_further_request(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        (target / ("a.npy" + PART_SUFFIX)).write_bytes(BODY)
        mirror.requests.clear()

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY
        assert mirror.requests == []

    def test_a_part_of_another_mirror_is_not_gone_on_with(
        self, mirror: Mirror, fetch: Fetch, shard_directory: Path
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        with Mirror(shard_directory) as second:
            second.fail("a.npy", VersionedFile(OTHER))

            assert fetch(f"{second.url}/a.npy").path.read_bytes() == OTHER

    def test_a_damaged_record_means_beginning_again(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        (target / ("a.npy" + PART_SUFFIX + RECORD_SUFFIX)).write_text("{")

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == BODY

    def test_tries_that_bring_something_new_do_not_count(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY, cuts=[500_000] * 5))

        assert fetch(f"{mirror.url}/a.npy", ONE_TRY).path.read_bytes() == BODY

    def test_tries_that_bring_nothing_new_come_to_an_end(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY, ranges=False, cuts=[1_500_000] * 50))

        with pytest.raises(SourceIncomplete):
            fetch(f"{mirror.url}/a.npy")
        assert len(mirror.requests) == 1 + OPTIONS.tries

    def test_a_killed_process_leaves_a_part_to_go_on_with(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        body = b"\x93NUMPY" + random.Random(3).randbytes(8_000_000)
        half = stall_after(body[:4_000_000], announced=len(body), headers={"ETag": '"v1"'})
        mirror.fail("a.npy", half)
        part = target / ("a.npy" + PART_SUFFIX)
        code = (
            "import sys, pathlib, laion.download as d, laion.download.http as h\n"
            "d.fetch_file(sys.argv[1], pathlib.Path(sys.argv[2]), h.open_session(1), "
            "d.DownloadOptions())"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code, f"{mirror.url}/a.npy", str(target / "a.npy")]
        )
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size >= 3_000_000):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        mirror.closing.set()
        mirror.fail("a.npy", VersionedFile(body), "")

        assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == body
        assert int(ranges_asked(mirror)[0].removeprefix("bytes=").removesuffix("-")) >= 3_000_000

    def test_a_part_that_another_process_still_writes_is_left_to_it(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        leave_part(fetch, mirror, at=2_000_000)
        with (target / ("a.npy" + PART_SUFFIX)).open("ab") as zombie:
            fcntl.flock(zombie, fcntl.LOCK_EX)
            zombie.write(b"rubbish")
            zombie.flush()

            fetched = fetch(f"{mirror.url}/a.npy")
            zombie.write(b"more rubbish")

        assert fetched.path.read_bytes() == BODY


@pytest.mark.parametrize("seed", range(100))
def test_a_connection_reset_at_any_byte_costs_only_the_rest(
    mirror: Mirror, fetch: Fetch, seed: int
) -> None:
    body = b"\x93NUMPY" + random.Random(seed).randbytes(300_000)
    at = random.Random(seed).randrange(len(body) + 1)
    mirror.fail("a.npy", VersionedFile(body, resets=[at]))

    assert fetch(f"{mirror.url}/a.npy").path.read_bytes() == body


class TestChecksum:
    def test_a_right_one_is_accepted(self, mirror: Mirror, fetch: Fetch) -> None:
        mirror.fail("a.npy", VersionedFile(BODY))

        assert fetch(f"{mirror.url}/a.npy", sha256=hashlib.sha256(BODY).hexdigest()).size

    def test_a_wrong_one_is_tried_once_more_and_then_fails(
        self, mirror: Mirror, fetch: Fetch, target: Path
    ) -> None:
        mirror.fail("a.npy", VersionedFile(OTHER))

        with pytest.raises(ChecksumMismatch, match="another mirror"):
            fetch(f"{mirror.url}/a.npy", sha256=hashlib.sha256(BODY).hexdigest())
        assert len(mirror.requests) == 2
        assert names(target) == []

    def test_damage_on_the_way_is_mended_by_the_second_try(
        self, mirror: Mirror, fetch: Fetch
    ) -> None:
        damaged = BODY[:-1] + bytes([BODY[-1] ^ 1])
        mirror.fail("a.npy", in_turn(VersionedFile(damaged), VersionedFile(BODY)))

        fetched = fetch(f"{mirror.url}/a.npy", sha256=hashlib.sha256(BODY).hexdigest())

        assert fetched.path.read_bytes() == BODY


class TestDisk:
    def test_a_file_that_cannot_fit_is_not_begun(
        self, mirror: Mirror, session: requests.Session, full_disk: Path
    ) -> None:
        mirror.fail("a.npy", VersionedFile(BODY))

        with pytest.raises(DiskFull, match=rf"a\.npy needs {len(BODY)} bytes"):
            fetch_file(f"{mirror.url}/a.npy", full_disk / "a.npy", session, OPTIONS)
        assert names(full_disk) == []

    def test_a_disk_that_fills_up_meanwhile_is_typed_and_leaves_no_file(
        self, mirror: Mirror, session: requests.Session, full_disk: Path
    ) -> None:
        # A body of unknown size, so that nothing is known beforehand.
        mirror.fail("a.npy", send_part(BODY, announced=None))

        with pytest.raises(DiskFull, match=r"a\.npy needs \? bytes"):
            fetch_file(f"{mirror.url}/a.npy", full_disk / "a.npy", session, OPTIONS)
        assert names(full_disk) == []


def test_a_short_body_is_told_with_both_sizes(mirror: Mirror, fetch: Fetch) -> None:
    mirror.fail("a.npy", send_part(BODY[:100], announced=5000))

    with pytest.raises(SourceIncomplete, match="has 5,000 bytes, but 100 arrived"):
        fetch(f"{mirror.url}/a.npy", DownloadOptions(tries=1))


def test_a_part_reports_what_is_in_it(target: Path) -> None:
    with PartialFile(target / "a.npy") as part:
        part.write(b"abc")

        assert part.size == 3
        assert part.origin is None
