from __future__ import annotations

import errno
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from laion.errors import BadSource, DiskFull, StorageRefused
from laion.s3 import S3Options
from laion.storage import (
    STALE_AFTER_S,
    BucketArea,
    DirectoryArea,
    StagingArea,
    disk_full_as_error,
    open_staging,
)

NOW = 2_000_000_000.0
STALE = NOW - STALE_AFTER_S - 1


def attempt(number: int) -> str:
    return f"{number:08x}"


@pytest.fixture
def area(tmp_path: Path) -> DirectoryArea:
    return DirectoryArea(tmp_path / "staging", capacity=3)


def claim(area: DirectoryArea, number: int, table: str = "hold") -> Path:
    assert area.claim(table, number, attempt(number))
    return area.directory(table, number, attempt(number))


def open_area(uri: str, scratch: Path) -> StagingArea:
    return open_staging(uri, 3, scratch, S3Options())


def touch(path: Path, at: float) -> None:
    os.utime(path, (at, at))


class TestUri:
    def test_a_directory_of_this_machine_is_taken(self, tmp_path: Path) -> None:
        assert open_area((tmp_path / "a b").as_uri(), tmp_path).root == tmp_path / "a b"

    def test_a_prefix_on_s3_is_taken(self, tmp_path: Path) -> None:
        area = open_area("s3://bucket/some/prefix/", tmp_path)

        assert isinstance(area, BucketArea)
        assert area.root == "s3://bucket/some/prefix"

    @pytest.mark.parametrize("uri", ["http://host/x", "/data/staging"])
    def test_another_kind_is_refused_with_the_settings_name(self, uri: str, tmp_path: Path) -> None:
        with pytest.raises(BadSource, match=r"LAION_STAGING_URI.*file:///"):
            open_area(uri, tmp_path)

    def test_credentials_in_the_uri_are_refused_and_not_shown(self, tmp_path: Path) -> None:
        with pytest.raises(BadSource, match="Airflow connection") as caught:
            open_area("s3://AKIA:hush@bucket/x", tmp_path)
        assert "hush" not in str(caught.value)


class TestClaim:
    def test_it_makes_the_directory_of_the_attempt(self, area: DirectoryArea) -> None:
        assert area.claim("hold", 7, "aaaa0001")

        assert area.directory("hold", 7, "aaaa0001").is_dir()

    def test_claims_are_let_in_up_to_the_capacity(self, area: DirectoryArea) -> None:
        assert all(area.claim("hold", n, attempt(n)) for n in range(3))

    def test_a_directory_of_another_user_is_named_with_both_users(self) -> None:
        # Not in pytest's own directory, which other users may not enter.
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o555)
            area = DirectoryArea(Path(name) / "staging", capacity=1)
            user, is_root = os.geteuid(), os.geteuid() == 0
            try:
                if is_root:
                    os.seteuid(65534)
                for ask in (lambda: area.claim("hold", 0, attempt(0)), area.check_writable):
                    with pytest.raises(
                        StorageRefused,
                        match=rf"user {os.geteuid()}, .* {name} belongs to user {user}",
                    ):
                        ask()
            finally:
                os.seteuid(user)

    def test_a_claim_above_the_capacity_is_turned_away_and_leaves_nothing(
        self, area: DirectoryArea
    ) -> None:
        for number in range(3):
            claim(area, number)

        assert not area.claim("hold", 3, attempt(3))
        assert not area.directory("hold", 3, attempt(3)).exists()

    def test_all_tables_share_the_capacity(self, area: DirectoryArea) -> None:
        for number, table in enumerate(("a", "b", "c")):
            claim(area, number, table)

        assert not area.claim("d", 3, attempt(3))

    def test_a_place_is_held_until_it_is_released_or_given_on(self, area: DirectoryArea) -> None:
        assert not area.holds("hold", 1, attempt(1))
        claim(area, 1)
        assert area.holds("hold", 1, attempt(1))
        area.adopt("hold", 1, attempt(1), "bbbb0001")
        assert not area.holds("hold", 1, attempt(1))
        assert area.holds("hold", 1, "bbbb0001")
        area.release("hold", 1, "bbbb0001")
        assert not area.holds("hold", 1, "bbbb0001")

    def test_a_release_makes_room_for_the_next(self, area: DirectoryArea) -> None:
        for number in range(3):
            claim(area, number)

        area.release("hold", 1, attempt(1))

        assert area.claim("hold", 3, attempt(3))

    def test_eight_claims_at_once_never_exceed_the_capacity(self, area: DirectoryArea) -> None:
        for round_ in range(20):
            start = threading.Barrier(8)

            def claim_at_once(
                number: int, round_: int = round_, start: threading.Barrier = start
            ) -> bool:
                start.wait()
                return area.claim("hold", number, attempt(100 * round_ + number))

            with ThreadPoolExecutor(8) as pool:
                claimed = list(pool.map(claim_at_once, range(8)))
            assert sum(claimed) <= 3
            assert sum(claimed) == len(list(area.root.glob("*/*")))
            for path in area.root.glob("*/*"):
                path.rmdir()


class TestAdopt:
    def test_a_new_attempt_gets_what_an_earlier_one_has_fetched_and_its_place(
        self, area: DirectoryArea
    ) -> None:
        (claim(area, 1) / "a.npy.part").write_bytes(b"half")
        claim(area, 2)
        claim(area, 3)

        assert area.adopt("hold", 1, attempt(1), "bbbb0001")

        mine = area.directory("hold", 1, "bbbb0001")
        assert (mine / "a.npy.part").read_bytes() == b"half"
        assert not area.directory("hold", 1, attempt(1)).exists()
        assert not area.claim("hold", 4, attempt(4))

    def test_an_attempt_that_left_nothing_cannot_be_adopted(self, area: DirectoryArea) -> None:
        assert not area.adopt("hold", 1, attempt(1), "bbbb0001")

    def test_an_adopted_directory_counts_as_touched(self, area: DirectoryArea) -> None:
        touch(claim(area, 1), STALE)

        area.adopt("hold", 1, attempt(1), "bbbb0001")

        assert area.sweep() == []


class TestRelease:
    def test_it_deletes_its_own_directory_with_its_files_and_no_other(
        self, area: DirectoryArea
    ) -> None:
        mine, other = claim(area, 1), claim(area, 2)
        (mine / "1.parquet").touch()
        (other / "2.parquet").touch()

        area.release("hold", 1, attempt(1))

        assert not mine.exists()
        assert (other / "2.parquet").exists()

    def test_another_attempt_at_the_same_shard_stays(self, area: DirectoryArea) -> None:
        assert area.claim("hold", 1, "bbbb0001")
        claim(area, 1)

        area.release("hold", 1, attempt(1))

        assert area.directory("hold", 1, "bbbb0001").exists()

    def test_a_directory_that_is_gone_is_no_error(self, area: DirectoryArea) -> None:
        area.release("hold", 1, attempt(1))


class TestSweep:
    def test_it_deletes_attempts_that_nobody_has_touched_for_long(
        self, area: DirectoryArea
    ) -> None:
        stale, fresh = claim(area, 1), claim(area, 2)
        touch(stale, STALE)
        touch(fresh, NOW - 1)

        assert area.sweep(NOW) == [str(stale)]
        assert (stale.exists(), fresh.exists()) == (False, True)

    def test_a_file_that_is_being_written_keeps_its_attempt(self, area: DirectoryArea) -> None:
        directory = claim(area, 1)
        (directory / "img_emb_1.npy.part").touch()
        touch(directory / "img_emb_1.npy.part", NOW - 1)
        touch(directory, STALE)

        assert area.sweep(NOW) == []
        assert directory.exists()

    def test_files_that_are_no_attempts_are_left_alone(self, area: DirectoryArea) -> None:
        kept = area.root / "parquet" / "hold" / "1.parquet"
        kept.parent.mkdir(parents=True)
        kept.touch()
        for path in (kept, kept.parent, kept.parent.parent):
            touch(path, STALE)

        assert area.sweep(NOW) == []
        assert kept.exists()

    def test_attempts_of_runs_that_go_on_are_kept(self, area: DirectoryArea) -> None:
        touch(claim(area, 1), STALE)

        assert area.sweep(NOW, keep=[attempt(1)]) == []
        assert area.attempts() == [("hold", 1, attempt(1))]


class TestDiskFull:
    def test_it_says_where_what_was_needed_and_which_settings_help(self, tmp_path: Path) -> None:
        with (
            pytest.raises(DiskFull, match=r"a\.npy needs 5 bytes.*LAION_STAGING_URI") as caught,
            disk_full_as_error(tmp_path, "a.npy needs 5 bytes"),
            Path("/dev/full").open("wb", buffering=0) as file,
        ):
            file.write(b"x")
        assert str(tmp_path) in str(caught.value)

    def test_other_errors_pass_through(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="denied") as caught, disk_full_as_error(tmp_path, ""):
            raise OSError(errno.EACCES, "denied")
        assert not isinstance(caught.value, DiskFull)
