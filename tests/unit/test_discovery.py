"""Which shards a source has, when the dataset does not say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from laion.datasets import load_profile
from laion.errors import BadShards, SourceUnreachable
from laion.shards import format_shards
from laion.sources import LOOK_AHEAD, discover_shards
from tests.unit.mirrors import Mirror, answer, unused_url
from tests.unit.source_files import put_shard

CLIP_RETRIEVAL = load_profile("clip_retrieval")


class TestDiscovery:
    def test_shards_are_counted_to_the_last(self, mirror: Mirror, shard_directory: Path) -> None:
        for shard in range(15):
            put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard, digits=4)

        assert discover_shards(CLIP_RETRIEVAL, mirror.url) == list(range(15))

    @pytest.mark.parametrize("last", [3, LOOK_AHEAD + 1])
    def test_shards_beyond_a_hole_are_found_and_the_hole_is_reported(
        self, shard_directory: Path, caplog: pytest.LogCaptureFixture, last: int
    ) -> None:
        for shard in (0, 1, last):
            put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard)

        found = discover_shards(CLIP_RETRIEVAL, shard_directory.as_uri())

        assert found == list(range(last + 1))
        assert f"nothing of {format_shards(list(range(2, last)))}: " in caplog.text

    def test_the_search_ends_after_so_many_missing_shards_and_says_where(
        self, shard_directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "laion.sources")
        for shard in (0, 2 * LOOK_AHEAD):
            put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard)

        assert discover_shards(CLIP_RETRIEVAL, shard_directory.as_uri()) == [0]
        asked = re.search(r"shards up to 0; it was asked up to (\d+)", caplog.text)
        assert asked is not None
        assert LOOK_AHEAD <= int(asked[1]) < 2 * LOOK_AHEAD

    def test_a_shard_that_lacks_a_file_counts(self, shard_directory: Path) -> None:
        for shard in range(3):
            put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard)
        (shard_directory / "metadata" / "metadata_2.parquet").unlink()

        assert discover_shards(CLIP_RETRIEVAL, shard_directory.as_uri()) == [0, 1, 2]

    def test_shards_that_only_another_mirror_has_are_found(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 0)
        for shard in range(3):
            put_shard(tmp_path / "second", CLIP_RETRIEVAL, 0, shard)
        sources = f"{mirror.url},{(tmp_path / 'second').as_uri()}"

        assert discover_shards(CLIP_RETRIEVAL, sources) == [0, 1, 2]

    def test_a_mirror_that_may_not_be_listed_refuses_what_it_lacks(
        self,
        mirror: Mirror,
        shard_directory: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level("INFO", "laion.sources")
        for shard in range(3):
            put_shard(shard_directory, CLIP_RETRIEVAL, 0, shard)
        second = tmp_path / "second"
        put_shard(second, CLIP_RETRIEVAL, 0, 0)
        with Mirror(second) as other:
            for shard in (1, 2, *range(3, LOOK_AHEAD + 60)):
                for path in CLIP_RETRIEVAL.layouts[0].paths(shard, 1).values():
                    other.fail(f"/{path}", answer(403), "")

            found = discover_shards(CLIP_RETRIEVAL, f"{mirror.url},{other.url}")

        assert found == [0, 1, 2]
        assert re.search(r"nothing beyond, but refused [\d,]+ files\.", caplog.text)

    def test_a_mirror_that_does_not_answer_might_have_more(
        self, mirror: Mirror, shard_directory: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 0)

        with pytest.raises(SourceUnreachable):
            discover_shards(CLIP_RETRIEVAL, f"{mirror.url},{unused_url()}")

    def test_a_mirror_that_does_not_begin_at_0_wants_a_range(
        self, mirror: Mirror, shard_directory: Path, tmp_path: Path
    ) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 0)
        put_shard(tmp_path / "second", CLIP_RETRIEVAL, 0, 1)

        with pytest.raises(BadShards, match="second has no shard 0"):
            discover_shards(CLIP_RETRIEVAL, f"{mirror.url},{(tmp_path / 'second').as_uri()}")

    def test_a_source_that_does_not_begin_at_0_wants_a_range(self, shard_directory: Path) -> None:
        put_shard(shard_directory, CLIP_RETRIEVAL, 0, 1)

        with pytest.raises(BadShards, match="'1-10'"):
            discover_shards(CLIP_RETRIEVAL, shard_directory.as_uri())
