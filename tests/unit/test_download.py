from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from laion.download import Timeouts, download_shard, fetch_file, find_local_files, is_local_shard
from laion.errors import (
    DiskFull,
    LaionError,
    SourceIncomplete,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)
from laion.shards import ROLES, ShardFiles
from tests.shard_files import ATTEMPT, spec_of, write_little_shard
from tests.unit.mirrors import Fault, Mirror, answer, send_part, stall_after, unused_url

SECRET = "s3cr3t"
TIMEOUTS = Timeouts(connect_s=10, read_s=10)
SHORT_TIMEOUTS = Timeouts(connect_s=10, read_s=0.2)


@pytest.fixture
def source(shard_directory: Path) -> ShardFiles:
    return write_little_shard(shard_directory)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "attempt"
    directory.mkdir()
    return directory


class TestShard:
    def test_its_files_arrive_byte_for_byte(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        files = download_shard(spec_of(mirror.url), ATTEMPT, target, TIMEOUTS)

        for role in ROLES:
            assert Path(files.paths[role]).read_bytes() == Path(source.paths[role]).read_bytes()

    def test_the_record_tells_sizes_and_that_the_files_are_ours(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        files = download_shard(spec_of(mirror.url), ATTEMPT, target, TIMEOUTS)

        assert files.sizes == source.sizes
        assert files.staged
        assert {Path(path).parent for path in files.paths.values()} == {target}

    def test_it_can_be_fetched_again_into_the_same_directory(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        first = download_shard(spec_of(mirror.url), ATTEMPT, target, TIMEOUTS)

        assert download_shard(spec_of(mirror.url), ATTEMPT, target, TIMEOUTS) == first

    def test_an_error_names_the_shard(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        mirror.fail("text_emb_0.npy", answer(404))

        with pytest.raises(SourceMissing, match=r"^shard 00000: .*text_emb_0\.npy"):
            download_shard(spec_of(mirror.url), ATTEMPT, target, TIMEOUTS)


FAULTS: dict[str, tuple[Fault, type[LaionError]]] = {
    "404": (answer(404), SourceMissing),
    "410": (answer(410), SourceMissing),
    "401": (answer(401), SourceRefused),
    "403": (answer(403), SourceRefused),
    "429": (answer(429), SourceUnreachable),
    "500": (answer(500), SourceUnreachable),
    "503": (answer(503), SourceUnreachable),
    "truncated": (send_part(b"x" * 100, announced=5000), SourceIncomplete),
    "empty": (send_part(b"", announced=5000), SourceIncomplete),
    "stalled": (stall_after(b"x" * 100, announced=5000), SourceUnreachable),
}


class TestFailures:
    @pytest.mark.parametrize("name", FAULTS)
    def test_each_has_its_type(self, mirror: Mirror, target: Path, name: str) -> None:
        fault, error = FAULTS[name]
        mirror.fail("a.npy", fault)

        with pytest.raises(error, match=r"a\.npy"):
            fetch_file(f"{mirror.url}/a.npy", target / "a.npy", SHORT_TIMEOUTS)

    @pytest.mark.parametrize("name", FAULTS)
    def test_none_leaves_a_file(self, mirror: Mirror, target: Path, name: str) -> None:
        mirror.fail("a.npy", FAULTS[name][0])

        with pytest.raises(LaionError):
            fetch_file(f"{mirror.url}/a.npy", target / "a.npy", SHORT_TIMEOUTS)
        assert list(target.iterdir()) == []

    @pytest.mark.parametrize("name", FAULTS)
    def test_none_of_one_file_leaves_a_part_of_the_others(
        self, mirror: Mirror, source: ShardFiles, target: Path, name: str
    ) -> None:
        mirror.fail("metadata_0.parquet", FAULTS[name][0])

        with pytest.raises(FAULTS[name][1]):
            download_shard(spec_of(mirror.url), ATTEMPT, target, SHORT_TIMEOUTS)
        assert list(target.glob("*.part")) == []
        assert not (target / "metadata_0.parquet").exists()

    @pytest.mark.parametrize("name", FAULTS)
    def test_none_tells_the_credentials(self, mirror: Mirror, target: Path, name: str) -> None:
        mirror.fail("a.npy", FAULTS[name][0])
        url = mirror.url_with(f"me:{SECRET}@") + "/a.npy"

        with pytest.raises(LaionError) as caught:
            fetch_file(url, target / "a.npy", SHORT_TIMEOUTS)
        assert SECRET not in str(caught.value)

    def test_a_refused_connection_is_typed(self, target: Path) -> None:
        with pytest.raises(SourceUnreachable, match="Connection refused"):
            fetch_file(f"{unused_url()}/a.npy", target / "a.npy", TIMEOUTS)

    def test_a_short_body_is_told_with_both_sizes(self, mirror: Mirror, target: Path) -> None:
        mirror.fail("a.npy", send_part(b"x" * 100, announced=5000))

        with pytest.raises(SourceIncomplete, match="has 5,000 bytes, but 100 arrived"):
            fetch_file(f"{mirror.url}/a.npy", target / "a.npy", TIMEOUTS)

    def test_an_older_complete_file_survives_a_failed_download(
        self, mirror: Mirror, target: Path
    ) -> None:
        (target / "a.npy").write_bytes(b"whole")
        mirror.fail("a.npy", send_part(b"x", announced=5))

        with pytest.raises(SourceIncomplete):
            fetch_file(f"{mirror.url}/a.npy", target / "a.npy", TIMEOUTS)
        assert (target / "a.npy").read_bytes() == b"whole"

    def test_a_size_that_is_not_announced_is_not_checked(
        self, mirror: Mirror, target: Path
    ) -> None:
        mirror.fail("a.npy", send_part(b"x" * 100, announced=None))

        assert fetch_file(f"{mirror.url}/a.npy", target / "a.npy", TIMEOUTS) == 100

    def test_a_full_disk_is_typed_and_leaves_no_file(
        self, mirror: Mirror, shard_directory: Path, full_disk: Path
    ) -> None:
        (shard_directory / "a.npy").write_bytes(b"x" * 66_560)

        with pytest.raises(DiskFull, match=r"a\.npy needs 66560 bytes"):
            fetch_file(f"{mirror.url}/a.npy", full_disk / "a.npy", TIMEOUTS)
        assert list(full_disk.iterdir()) == []


class TestLocalFiles:
    def test_they_are_used_in_place(self, source: ShardFiles, shard_directory: Path) -> None:
        files = find_local_files(spec_of(shard_directory), ATTEMPT)

        assert files == replace(source, staged=False)

    def test_they_are_left_as_they_are(self, source: ShardFiles, shard_directory: Path) -> None:
        before = {role: Path(path).read_bytes() for role, path in source.paths.items()}

        find_local_files(spec_of(shard_directory), ATTEMPT)

        assert {r: Path(p).read_bytes() for r, p in source.paths.items()} == before
        assert len(list(shard_directory.rglob("*.*"))) == len(ROLES)

    def test_a_missing_one_is_typed_with_shard_and_path(
        self, source: ShardFiles, shard_directory: Path
    ) -> None:
        Path(source.paths["metadata"]).unlink()

        with pytest.raises(SourceMissing, match=r"shard 00000: .*metadata_0\.parquet"):
            find_local_files(spec_of(shard_directory), ATTEMPT)

    def test_only_a_source_of_this_machine_is_local(self, shard_directory: Path) -> None:
        assert is_local_shard(spec_of(shard_directory))
        assert not is_local_shard(spec_of("http://127.0.0.1:9000"))
