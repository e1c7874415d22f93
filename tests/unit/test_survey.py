"""Every file of a plan is asked for once, and hosts that are down not for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from laion.download import DownloadOptions
from laion.errors import SourceMissing, SourceRefused, SourceUnreachable
from laion.shards import ShardSpec
from laion.survey import GIVE_UP_AFTER, survey_files
from tests.shard_files import ROLES, spec_of, write_little_shard
from tests.unit.mirrors import Mirror, answer, unused_url

OPTIONS = DownloadOptions(connections=4, first_wait_s=0)


def specs_of(base: Path | str, count: int) -> list[ShardSpec]:
    return [spec_of(base, shard) for shard in range(count)]


def with_second_mirror(specs: list[ShardSpec], second: list[ShardSpec]) -> list[ShardSpec]:
    return [
        replace(a, urls={role: [*a.urls[role], *b.urls[role]] for role in ROLES})
        for a, b in zip(specs, second, strict=True)
    ]


def test_sizes_of_all_files_are_known_from_their_headers_alone(
    mirror: Mirror, shard_directory: Path
) -> None:
    written = [write_little_shard(shard_directory, shard) for shard in range(3)]

    survey = survey_files(specs_of(mirror.url, 3), OPTIONS)

    assert survey.errors == {}
    assert survey.fetch_bytes == sum(sum(files.sizes.values()) for files in written)
    assert survey.shard_bytes(1) == sum(written[1].sizes.values())
    assert sorted({request.split()[0] for request in mirror.requests}) == ["HEAD"]
    assert len(mirror.requests) == 9


def test_files_of_this_machine_need_not_be_fetched(shard_directory: Path) -> None:
    write_little_shard(shard_directory)

    survey = survey_files(specs_of(shard_directory, 1), OPTIONS)

    assert survey.fetch_bytes == 0
    assert survey.shard_bytes(0) > 0


def test_a_shard_that_lacks_a_file_is_told_with_the_reason(
    mirror: Mirror, shard_directory: Path
) -> None:
    for shard in range(3):
        write_little_shard(shard_directory, shard)
    (shard_directory / "metadata" / "metadata_1.parquet").unlink()

    survey = survey_files(specs_of(mirror.url, 3), OPTIONS)

    assert list(survey.broken_shards) == [1]
    assert isinstance(survey.broken_shards[1], SourceMissing)
    assert "metadata_1.parquet" in str(survey.broken_shards[1])


def test_a_file_that_one_mirror_lacks_is_found_at_the_next(
    mirror: Mirror, shard_directory: Path, tmp_path: Path
) -> None:
    write_little_shard(shard_directory)
    with Mirror(tmp_path) as empty:
        specs = with_second_mirror(specs_of(empty.url, 1), specs_of(mirror.url, 1))

        assert survey_files(specs, OPTIONS).errors == {}


def test_a_refusal_is_told(mirror: Mirror) -> None:
    mirror.fail("", answer(403), "")

    survey = survey_files(specs_of(mirror.url, 2), OPTIONS)

    assert {type(error) for error in survey.errors.values()} == {SourceRefused}
    assert len(survey.errors) == 6


def test_a_host_that_never_answers_is_given_up(mirror: Mirror) -> None:
    mirror.fail("", answer(500), "")

    survey = survey_files(specs_of(mirror.url, 50), replace(OPTIONS, connections=1))

    assert len(survey.errors) == 150
    assert len(mirror.requests) == GIVE_UP_AFTER


def test_a_mirror_that_is_down_does_not_hide_the_next(
    mirror: Mirror, shard_directory: Path
) -> None:
    for shard in range(10):
        write_little_shard(shard_directory, shard)
    specs = with_second_mirror(specs_of(unused_url(), 10), specs_of(mirror.url, 10))

    assert survey_files(specs, OPTIONS).errors == {}


def test_a_host_that_answers_now_and_then_is_asked_on(
    mirror: Mirror, shard_directory: Path
) -> None:
    for shard in range(10):
        write_little_shard(shard_directory, shard)
    mirror.fail(".parquet", answer(500), "")

    survey = survey_files(specs_of(mirror.url, 10), replace(OPTIONS, connections=1))

    assert len(survey.errors) == 10
    assert {type(error) for error in survey.errors.values()} == {SourceUnreachable}
    assert len(mirror.requests) == 30
