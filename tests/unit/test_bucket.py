"""A staging area on S3, here moto's server."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from laion.errors import BadSetting, StagingGone, StorageRefused, StorageUnreachable
from laion.storage import STALE_AFTER_S, BucketArea
from laion.storage.scratch import ABANDONED_AFTER_S, open_scratch
from tests.s3 import S3Server
from tests.unit.mirrors import unused_url

FIRST, SECOND = "00000001", "00000002"


@pytest.fixture
def area(s3_server: S3Server, tmp_path: Path) -> BucketArea:
    root = f"s3://{s3_server.make_bucket()}/staging"
    return BucketArea(root, 3, tmp_path / "scratch", s3_server.options)


def test_claims_are_let_in_up_to_the_capacity_whatever_the_table(area: BucketArea) -> None:
    claimed = [area.claim(table, 7, FIRST) for table in ("a", "b", "c", "d")]

    assert claimed == [True, True, True, False]
    assert area.objects.list_files(area.directory("d", 7, FIRST)) == []


def test_a_place_is_held_until_it_is_released_or_given_on(area: BucketArea) -> None:
    assert not area.holds("hold", 7, FIRST)
    area.claim("hold", 7, FIRST)
    assert area.holds("hold", 7, FIRST)
    area.adopt("hold", 7, FIRST, SECOND)
    assert not area.holds("hold", 7, FIRST)
    assert area.holds("hold", 7, SECOND)
    area.release("hold", 7, SECOND)
    assert not area.holds("hold", 7, SECOND)


def test_what_is_kept_takes_no_place(area: BucketArea, tmp_path: Path) -> None:
    assert area.claim("hold", 7, FIRST)
    (tmp_path / "7.parquet").write_bytes(b"rows")
    area.objects.upload(tmp_path / "7.parquet", f"{area.directory('hold', 7, FIRST)}/7.parquet")

    kept = area.keep(f"{area.directory('hold', 7, FIRST)}/7.parquet", "hold")
    area.release("hold", 7, FIRST)

    assert kept == f"{area.root}/parquet/hold/7.parquet"
    assert area.objects.list_files(kept.removesuffix("/7.parquet")) == ["7.parquet"]
    assert [area.claim("hold", n, FIRST) for n in range(4)] == [True, True, True, False]
    assert area.sweep(time.time() + 2 * STALE_AFTER_S)
    assert area.objects.list_files(f"{area.root}/parquet") == ["7.parquet"]


def test_eight_claims_at_once_never_exceed_the_capacity(area: BucketArea) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda n: area.claim("hold", n, FIRST), range(8)))

    assert sum(claimed) <= 3
    assert sum(claimed) == len(area.objects.list_files(area.root))


def test_a_task_leaves_its_files_on_s3_and_nothing_on_its_machine(area: BucketArea) -> None:
    assert area.claim("hold", 7, FIRST)

    with area.workspace("hold", 7, FIRST) as work:
        (work.directory / "a.npy").write_bytes(b"abc")
        place = work.store(work.directory / "a.npy")

    assert list(area.scratch.iterdir()) == []
    with area.workspace("hold", 7, FIRST) as work:
        assert work.bring(place).read_bytes() == b"abc"


def test_files_of_a_source_that_is_read_in_place_are_not_stored(
    area: BucketArea, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(b"abc")

    with area.workspace("hold", 7, FIRST) as work:
        place = work.store(tmp_path / "a.npy")

        assert place == str(tmp_path / "a.npy")
        assert work.bring(place) == tmp_path / "a.npy"
    assert area.objects.list_files(area.root) == []


def test_a_file_that_is_gone_asks_for_the_download(area: BucketArea) -> None:
    with (
        area.workspace("hold", 7, FIRST) as work,
        pytest.raises(StagingGone, match="clear this task"),
    ):
        work.bring(f"{area.root}/hold/00007-{FIRST}/a.npy")


class TestResume:
    def test_the_next_try_finds_what_was_finished_and_what_was_not_on_any_machine(
        self, area: BucketArea, tmp_path: Path
    ) -> None:
        elsewhere = replace(area, scratch=tmp_path / "another machine")
        assert area.claim("hold", 7, FIRST)
        with pytest.raises(TimeoutError):
            _fail_half_way(area)

        assert elsewhere.adopt("hold", 7, FIRST, SECOND)
        with elsewhere.workspace("hold", 7, SECOND, resume=True) as work:
            found = {path.name: path.read_text() for path in work.directory.glob("[!.]*")}
            (work.directory / "b.npy.part").rename(work.directory / "b.npy")
            work.store(work.directory / "b.npy")

        names = ["a.npy", "a.npy.source", "b.npy.part", "b.npy.part.source"]
        assert found == {name: name for name in names}
        assert area.objects.list_files(area.directory("hold", 7, FIRST)) == []
        assert sorted(area.objects.list_files(area.directory("hold", 7, SECOND))) == [
            ".claim",
            "a.npy",
            "a.npy.source",
            "b.npy",
        ]

    def test_a_killed_task_leaves_its_unfinished_file_to_the_next_one_here(
        self, area: BucketArea
    ) -> None:
        assert area.claim("hold", 7, FIRST)
        fork = multiprocessing.get_context("spawn")
        task = fork.Process(target=_die_at_work, args=(area,))
        task.start()
        task.join()

        assert area.adopt("hold", 7, FIRST, SECOND)
        with area.workspace("hold", 7, SECOND, resume=True) as work:
            assert (work.directory / "a.npy.part").read_bytes() == b"half"
        assert list(area.scratch.iterdir()) == []

    def test_an_attempt_that_left_nothing_cannot_be_adopted(self, area: BucketArea) -> None:
        assert not area.adopt("hold", 7, FIRST, SECOND)


class TestScratch:
    def test_what_killed_tasks_have_left_is_deleted_after_a_while(self, tmp_path: Path) -> None:
        dead, fresh = tmp_path / "dead", tmp_path / "fresh"
        for directory in (dead, fresh):
            directory.mkdir()
            (directory / ".lock").touch()
        for path in (dead / ".lock", dead):
            os.utime(path, (time.time() - ABANDONED_AFTER_S - 1,) * 2)

        with open_scratch(tmp_path, "mine"):
            assert (dead.exists(), fresh.exists()) == (False, True)

    def test_one_in_which_a_task_works_silently_stays(self, tmp_path: Path) -> None:
        with open_scratch(tmp_path, "working") as working:
            for path in (working / ".lock", working):
                os.utime(path, (time.time() - ABANDONED_AFTER_S - 1,) * 2)
            with open_scratch(tmp_path, "mine"):
                assert working.exists()

    def test_one_in_which_a_task_still_works_is_left_to_it(self, tmp_path: Path) -> None:
        with open_scratch(tmp_path, "mine") as first, open_scratch(tmp_path, "mine") as second:
            assert first != second
        assert list(tmp_path.iterdir()) == []


class TestSweep:
    def test_it_deletes_attempts_that_nobody_has_touched_for_long(self, area: BucketArea) -> None:
        assert area.claim("hold", 1, FIRST)
        assert area.claim("hold", 2, FIRST)
        _age(area, f"hold/00001-{FIRST}/.claim")

        assert area.attempts() == [("hold", 1, FIRST), ("hold", 2, FIRST)]
        assert area.sweep(keep=[FIRST]) == []
        assert area.sweep() == [area.directory("hold", 1, FIRST)]
        assert area.objects.list_files(f"{area.root}/hold") == [".claim"]

    def test_it_ends_uploads_that_a_killed_worker_has_begun(
        self, area: BucketArea, s3_server: S3Server
    ) -> None:
        bucket, prefix = area.root.removeprefix("s3://").split("/")
        client = s3_server.client()
        for key in (f"{prefix}/hold/1.npy", "of another"):
            client.create_multipart_upload(Bucket=bucket, Key=key)

        # To moto, every upload was begun in 2010.
        area.sweep()

        left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert [upload["Key"] for upload in left] == ["of another"]


class TestErrors:
    def test_a_bucket_that_does_not_exist_is_no_reason_to_try_again(self, area: BucketArea) -> None:
        with pytest.raises(StorageRefused, match="LAION_STAGING_URI"):
            replace(area, root="s3://no-such-bucket/x").claim("hold", 7, FIRST)

    def test_one_that_does_not_answer_is(self, area: BucketArea) -> None:
        silent = replace(area, s3=replace(area.s3, endpoint_url=unused_url()))

        with pytest.raises(StorageUnreachable, match="Could not connect"):
            silent.claim("hold", 7, FIRST)

    def test_packages_that_are_not_installed_are_named(
        self, area: BucketArea, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)

        with pytest.raises(BadSetting, match=r"pip install 'laion-clickhouse\[s3\]'"):
            area.claim("hold", 7, FIRST)

    def test_wrong_credentials_are_said_and_not_shown(self, area: BucketArea) -> None:
        wrong = replace(area, s3=replace(area.s3, secret="not-the-secret"))

        with pytest.raises(StorageRefused, match="read, write, list and delete") as caught:
            wrong.claim("hold", 7, FIRST)
        assert "not-the-secret" not in str(caught.value)


def _fail_half_way(area: BucketArea) -> None:
    with area.workspace("hold", 7, FIRST, resume=True) as work:
        for name in ("a.npy", "a.npy.source", "b.npy.part", "b.npy.part.source"):
            (work.directory / name).write_text(name)
        work.store(work.directory / "a.npy")
        raise TimeoutError


def _die_at_work(area: BucketArea) -> None:
    with area.workspace("hold", 7, FIRST, resume=True) as work:
        (work.directory / "a.npy.part").write_bytes(b"half")
        os._exit(9)


def _age(area: BucketArea, name: str) -> None:
    """Let an object of moto's be old; a request cannot."""
    from moto.s3.models import s3_backends

    bucket, prefix = area.root.removeprefix("s3://").split("/")
    key = s3_backends["123456789012"]["aws"].buckets[bucket].keys[f"{prefix}/{name}"]
    key.last_modified = datetime.fromtimestamp(time.time() - STALE_AFTER_S - 1, UTC)
