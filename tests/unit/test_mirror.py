"""A copy of a dataset on this machine: whole, repeatable, and usable as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from laion import s3
from laion.datasets import load_profile
from laion.download import DownloadOptions
from laion.errors import BadSource, SourceMissing, SourceUnreachable
from laion.mirror import PASSES, copy_dataset, main
from laion.settings import get_settings
from laion.sources import locate_sources
from tests.s3 import S3Server
from tests.shard_files import ROLES, path_of, write_little_shard
from tests.unit.mirrors import Mirror, answer, in_turn

PROFILE = load_profile("clip_retrieval")
OPTIONS = DownloadOptions(first_wait_s=0, tries=1)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    directory = tmp_path / "copy"
    directory.mkdir()
    return directory


def no_wait(seconds: float) -> None:
    """Waiting is not what these tests are about."""


def test_every_file_arrives_at_its_place(mirror: Mirror, shard_directory: Path, copy: Path) -> None:
    for shard in range(3):
        write_little_shard(shard_directory, shard)

    outcome = copy_dataset(PROFILE, [0, 1, 2], copy, mirror.url, OPTIONS)

    assert outcome.failed == {}
    for shard in range(3):
        for role in ROLES:
            original = path_of(shard_directory, role, shard).read_bytes()
            assert path_of(copy, role, shard).read_bytes() == original


def test_the_copy_is_a_source(mirror: Mirror, shard_directory: Path, copy: Path) -> None:
    write_little_shard(shard_directory)

    copy_dataset(PROFILE, [0], copy, mirror.url, OPTIONS)

    assert locate_sources(PROFILE, copy.as_uri(), [0])


def test_a_second_copy_fetches_nothing(mirror: Mirror, shard_directory: Path, copy: Path) -> None:
    write_little_shard(shard_directory)
    copy_dataset(PROFILE, [0], copy, mirror.url, OPTIONS)

    again = copy_dataset(PROFILE, [0], copy, mirror.url, OPTIONS)

    assert again.fetched == 0
    assert again.size > 0


def test_a_shard_that_is_missing_does_not_stop_the_others(
    mirror: Mirror, shard_directory: Path, copy: Path
) -> None:
    for shard in (0, 2):
        write_little_shard(shard_directory, shard)

    outcome = copy_dataset(PROFILE, [0, 1, 2], copy, mirror.url, OPTIONS, no_wait)

    assert list(outcome.failed) == [1]
    assert isinstance(outcome.failed[1], SourceMissing)
    assert path_of(copy, "metadata", 2).is_file()


def test_what_fails_for_now_is_tried_again_after_everything_else(
    mirror: Mirror, shard_directory: Path, copy: Path
) -> None:
    files = write_little_shard(shard_directory)
    whole = Path(files.paths["metadata"]).read_bytes()

    def serve(handler: object) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        handler.wfile.write(whole)

    mirror.fail("metadata_0.parquet", in_turn(answer(500), answer(500), serve))

    assert copy_dataset(PROFILE, [0], copy, mirror.url, OPTIONS, no_wait).failed == {}


def test_what_fails_for_good_is_given_up(mirror: Mirror, shard_directory: Path, copy: Path) -> None:
    write_little_shard(shard_directory)
    mirror.fail("metadata_0.parquet", answer(500))

    outcome = copy_dataset(PROFILE, [0], copy, mirror.url, OPTIONS, no_wait)

    assert isinstance(outcome.failed[0], SourceUnreachable)
    assert mirror.requests.count("GET /metadata/metadata_0.parquet") == PASSES


def test_a_directory_of_this_machine_is_not_copied(shard_directory: Path, copy: Path) -> None:
    write_little_shard(shard_directory)

    with pytest.raises(BadSource, match="use it as it is"):
        copy_dataset(PROFILE, [0], copy, shard_directory.as_uri(), OPTIONS)


def test_the_command_says_what_is_there_and_how_to_use_it(
    mirror: Mirror, shard_directory: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_little_shard(shard_directory, 0)
    write_little_shard(shard_directory, 1)

    assert main(["clip_retrieval", str(copy), "--source", mirror.url]) == 0

    said = capsys.readouterr().out
    assert "2 of 2 shards" in said
    assert f"Use it as source: {copy.as_uri()}" in said


def test_the_command_fails_when_a_shard_is_not_whole(
    mirror: Mirror, shard_directory: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_little_shard(shard_directory, 0)

    arguments = ["clip_retrieval", str(copy), "--shards", "0-1", "--source", mirror.url]

    assert main(arguments) == 1
    assert "Not whole: shards 1." in capsys.readouterr().out


def test_the_command_explains_what_it_cannot_do(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laion4000m", str(copy)]) == 1
    assert "UnknownDataset" in capsys.readouterr().err


class TestS3:
    @pytest.fixture
    def target(
        self, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[str]:
        for name, value in s3_server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LAION_SCRATCH_DIR", str(tmp_path / "scratch"))
        for cached in (get_settings, s3.find_credentials, s3.find_place):
            cached.cache_clear()
        yield f"s3://{s3_server.make_bucket()}/copy"
        for cached in (get_settings, s3.find_credentials, s3.find_place):
            cached.cache_clear()

    def test_a_copy_on_s3_is_a_source_and_takes_no_room_here(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path, target: str
    ) -> None:
        write_little_shard(shard_directory)

        assert main(["clip_retrieval", target, "--shards", "0", "--source", mirror.url]) == 0

        assert list((tmp_path / "scratch").iterdir()) == []
        assert main(["clip_retrieval", str(tmp_path / "back"), "--source", target]) == 0
        for role in ROLES:
            original = path_of(shard_directory, role).read_bytes()
            assert path_of(tmp_path / "back", role).read_bytes() == original

    def test_only_what_has_changed_is_fetched_again(
        self, mirror: Mirror, shard_directory: Path, target: str
    ) -> None:
        write_little_shard(shard_directory)
        arguments = ["clip_retrieval", target, "--shards", "0", "--source", mirror.url]
        main(arguments)
        mirror.requests.clear()
        main(arguments)
        again = [asked for asked in mirror.requests if asked.startswith("GET")]
        write_little_shard(shard_directory, rows=7)

        main(arguments)

        changed = [asked for asked in mirror.requests if asked.startswith("GET")]
        assert (len(again), len(changed)) == (0, len(ROLES))

    def test_a_bucket_that_does_not_exist_is_told(
        self,
        mirror: Mirror,
        shard_directory: Path,
        target: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        write_little_shard(shard_directory)

        code = main(
            ["clip_retrieval", "s3://no-such-bucket/x", "--shards", "0", "--source", mirror.url]
        )

        assert code == 1
        assert "StorageRefused: S3 refuses s3://no-such-bucket" in capsys.readouterr().err
