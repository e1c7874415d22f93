"""The files of a shard: all of them, from whichever mirror has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from laion.download import changed_files, download_shard
from laion.errors import (
    ChecksumMismatch,
    LaionError,
    SourceIncomplete,
    SourceMissing,
    SourceUnreachable,
)
from laion.shards import ShardFiles, ShardSpec
from tests.shard_files import ATTEMPT, ROLES, spec_of, write_little_shard
from tests.unit.download.conftest import OPTIONS
from tests.unit.mirrors import Mirror, VersionedFile, answer, unused_url

SECRET = "s3cr3t"


@pytest.fixture
def source(shard_directory: Path) -> ShardFiles:
    return write_little_shard(shard_directory)


class TestShard:
    def test_its_files_arrive_byte_for_byte(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        files = download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS)

        for role in ROLES:
            assert Path(files.paths[role]).read_bytes() == Path(source.paths[role]).read_bytes()

    def test_the_record_tells_sizes_and_that_the_files_are_ours(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        files = download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS)

        assert files.sizes == source.sizes
        assert files.staged
        assert {Path(path).parent for path in files.paths.values()} == {target}

    def test_it_can_be_fetched_again_into_the_same_directory(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        first = download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS)

        assert download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS) == first

    def test_an_error_names_the_shard(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        mirror.fail("text_emb_0.npy", answer(404))

        with pytest.raises(SourceMissing, match=r"^shard 00000: .*text_emb_0\.npy"):
            download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS)

    def test_a_digest_that_is_known_is_checked(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        spec = replace(spec_of(mirror.url), sha256={"metadata": "0" * 64})

        with pytest.raises(ChecksumMismatch, match=r"metadata_0\.parquet"):
            download_shard(spec, ATTEMPT, target, replace(OPTIONS, checksum=False))


class TestChanges:
    @pytest.mark.parametrize(
        ("before", "now", "changed"),
        [
            ({"sha256": "a", "size": 5}, {"sha256": "a", "size": 5}, False),
            ({"sha256": "a", "size": 5}, {"sha256": "b", "size": 5}, True),
            ({"sha256": "", "size": 5}, {"sha256": "b", "size": 5}, False),
            ({"sha256": "", "size": 5}, {"sha256": "", "size": 6}, True),
            ({"size": 5, "etag": "1"}, {"size": 5, "etag": "2"}, False),
        ],
    )
    def test_a_file_has_changed_when_its_bytes_have(
        self, before: dict[str, object], now: dict[str, object], changed: bool
    ) -> None:
        assert bool(changed_files({"metadata": before}, {"metadata": now})) is changed

    def test_a_file_that_was_never_there_has_not_changed(self) -> None:
        assert changed_files({}, {"metadata": {"size": 5}}) == []


class TestMirrors:
    @pytest.mark.parametrize("status", [403, 404, 500])
    def test_a_file_that_the_first_does_not_deliver_comes_from_the_next(
        self, mirror: Mirror, source: ShardFiles, target: Path, tmp_path: Path, status: int
    ) -> None:
        with Mirror(tmp_path) as first:
            first.fail("", answer(status))
            spec = with_mirrors(first.url, mirror.url)

            files = download_shard(spec, ATTEMPT, target, OPTIONS)

        assert files.sizes == source.sizes

    def test_only_the_last_is_asked_twice(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        mirror.fail("text_emb_0.npy", answer(404))

        with pytest.raises(SourceMissing, match="text_emb_0"):
            download_shard(with_mirrors(mirror.url, mirror.url), ATTEMPT, target, OPTIONS)
        assert mirror.requests.count("GET /text_emb/text_emb_0.npy") == 2

    def test_one_that_may_have_the_file_later_decides_the_error(
        self, mirror: Mirror, source: ShardFiles, target: Path
    ) -> None:
        mirror.fail("text_emb_0.npy", answer(404))

        with pytest.raises(SourceUnreachable):
            download_shard(with_mirrors(mirror.url, unused_url()), ATTEMPT, target, OPTIONS)

    def test_a_part_is_gone_on_with_from_the_mirror_it_is_from(
        self, mirror: Mirror, source: ShardFiles, target: Path, tmp_path: Path
    ) -> None:
        body = Path(source.paths["metadata"]).read_bytes()
        mirror.fail("metadata_0.parquet", VersionedFile(body, cuts=[5000, 0]))
        with pytest.raises(SourceIncomplete):
            download_shard(spec_of(mirror.url), ATTEMPT, target, replace(OPTIONS, tries=1))

        with Mirror(tmp_path) as first:
            download_shard(with_mirrors(first.url, mirror.url), ATTEMPT, target, OPTIONS)

            assert "GET /metadata/metadata_0.parquet" not in first.requests
        ranges = [headers.get("Range") for headers in mirror.headers]
        assert ranges.count("bytes=5000-") == 2


def with_mirrors(*bases: str) -> ShardSpec:
    specs = [spec_of(base) for base in bases]
    urls = {role: [url for spec in specs for url in spec.urls[role]] for role in ROLES}
    return replace(specs[0], urls=urls)


def test_an_error_that_does_not_pass_is_told_before_one_that_may(
    mirror: Mirror, source: ShardFiles, target: Path
) -> None:
    mirror.fail("img_emb_0.npy", answer(500))
    mirror.fail("metadata_0.parquet", answer(404))

    with pytest.raises(SourceMissing):
        download_shard(spec_of(mirror.url), ATTEMPT, target, OPTIONS)


def test_no_error_tells_the_credentials(mirror: Mirror, target: Path) -> None:
    with pytest.raises(LaionError) as caught:
        download_shard(spec_of(mirror.url_with(f"me:{SECRET}@")), ATTEMPT, target, OPTIONS)
    assert SECRET not in str(caught.value)


class TestLocalFiles:
    def test_they_are_used_in_place(
        self, source: ShardFiles, shard_directory: Path, target: Path
    ) -> None:
        files = download_shard(spec_of(shard_directory), ATTEMPT, target)

        assert replace(files, origins={}) == replace(source, staged=False)
        assert list(target.iterdir()) == []

    def test_they_are_left_as_they_are(
        self, source: ShardFiles, shard_directory: Path, target: Path
    ) -> None:
        before = {role: Path(path).read_bytes() for role, path in source.paths.items()}

        download_shard(spec_of(shard_directory), ATTEMPT, target)

        assert {r: Path(p).read_bytes() for r, p in source.paths.items()} == before
        assert len(list(shard_directory.rglob("*.*"))) == len(ROLES)

    def test_a_missing_one_is_typed_with_shard_and_path(
        self, source: ShardFiles, shard_directory: Path, target: Path
    ) -> None:
        Path(source.paths["metadata"]).unlink()

        with pytest.raises(SourceMissing, match=r"shard 00000: .*metadata_0\.parquet"):
            download_shard(spec_of(shard_directory), ATTEMPT, target)

    def test_one_that_is_missing_comes_from_the_next_mirror(
        self, mirror: Mirror, source: ShardFiles, target: Path, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        write_little_shard(elsewhere)
        missing = elsewhere / "metadata" / "metadata_0.parquet"
        missing.unlink()

        files = download_shard(with_mirrors(elsewhere.as_uri(), mirror.url), ATTEMPT, target)

        assert files.sizes == source.sizes
        assert Path(files.paths["image_embedding"]).is_relative_to(elsewhere)
        assert Path(files.paths["metadata"]).is_relative_to(target)
        assert files.staged
