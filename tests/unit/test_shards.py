from __future__ import annotations

import json
import re
from typing import Any

import pytest

from laion.errors import BadShards
from laion.shards import (
    MAX_SHARD,
    SHARDS_PATTERN,
    ShardFiles,
    ShardParquet,
    ShardSpec,
    StagedShard,
    format_shards,
    parse_shards,
    shard_label,
)
from laion.vectors import Vector, clip_vectors
from tests.patience import patience

URLS = {"metadata": ["file:///m.parquet"]}
SPEC = ShardSpec("little", "hold", 7, URLS, rows=3, vectors=list(clip_vectors(16)))
FILES = ShardFiles(SPEC, "aaaa0001", {"metadata": "/m.parquet"}, {"metadata": 12}, staged=True)
PARQUET = ShardParquet(
    SPEC,
    "aaaa0001",
    "/7.parquet",
    3,
    99,
    {"metadata": 3},
    0,
    1,
    alignment="unknown",
)
STAGED = StagedShard(PARQUET, "hold_staging_7_aaaa0001", rows_written=3)


@pytest.mark.parametrize(
    ("expression", "numbers"),
    [
        ("0", [0]),
        ("0-2", [0, 1, 2]),
        ("0-2,5", [0, 1, 2, 5]),
        ("5, 0-2", [0, 1, 2, 5]),
        ("3,3,2-4", [2, 3, 4]),
        ("1-5,2-3,4-6", [1, 2, 3, 4, 5, 6]),
        ("7-7", [7]),
        ("007", [7]),
        ("65535", [65535]),
    ],
)
def test_an_expression_names_its_shards_sorted_and_once(
    expression: str, numbers: list[int]
) -> None:
    assert parse_shards(expression) == numbers


def test_ranges_that_are_named_over_and_over_are_counted_through_once() -> None:
    with patience():
        assert parse_shards("0-65535," * 100_000 + "7") == list(range(MAX_SHARD + 1))


@pytest.mark.parametrize("part", ["1,", "1 , ", "0-65535,", "1" + " " * 9 + ","])
def test_the_pattern_of_the_form_reads_a_long_expression_once(part: str) -> None:
    with patience():
        assert not re.search(SHARDS_PATTERN, part * 100_000 + "x")
        assert re.search(SHARDS_PATTERN, part * 100_000 + "1")


@pytest.mark.parametrize(
    ("numbers", "expression"),
    [
        ([], ""),
        ([4], "4"),
        ([1, 2], "1-2"),
        ([0, 1, 2, 4, 6, 7], "0-2,4,6-7"),
        ([9, 3, 3, 4], "3-4,9"),
        (list(range(410)), "0-409"),
    ],
)
def test_numbers_are_written_as_the_shortest_expression(
    numbers: list[int], expression: str
) -> None:
    assert format_shards(numbers) == expression


@pytest.mark.parametrize("numbers", [[0], [0, 1], [0, 2, 4], [1, 2, 3, 10, 11, 65535]])
def test_a_written_expression_reads_as_the_same_numbers(numbers: list[int]) -> None:
    assert parse_shards(format_shards(numbers)) == numbers


@pytest.mark.parametrize(
    "expression", ["", "a", "1-", "-1", "1,,2", "1;2", "1 2", "0..9", "1-2-3", "٣"]
)
def test_a_malformed_expression_is_refused_with_a_right_example(expression: str) -> None:
    with pytest.raises(BadShards, match="'0-9,12'") as caught:
        parse_shards(expression)
    assert repr(expression) in str(caught.value)


def test_of_a_long_expression_a_message_repeats_only_the_beginning() -> None:
    with pytest.raises(BadShards, match="cannot read 'x'") as caught:
        parse_shards("0-9," * 20_000 + "x")
    assert len(str(caught.value)) < 300


def test_a_range_that_ends_before_it_starts_is_refused_with_the_range_turned_round() -> None:
    with pytest.raises(BadShards, match="write 3-9"):
        parse_shards("0,9-3")


def test_a_shard_that_the_column_cannot_hold_is_refused() -> None:
    with pytest.raises(BadShards, match="0 to 65535"):
        parse_shards("65536")


@pytest.mark.parametrize("expression", ["0", "0-9,12", "1 , 2", "0-0", "3,1"])
def test_the_pattern_of_the_form_takes_what_the_parser_takes(expression: str) -> None:
    assert re.search(SHARDS_PATTERN, expression)
    assert parse_shards(expression)


@pytest.mark.parametrize(
    "expression", ["a", "1-", "-1", "1,,2", "1;2", "1 2", ",", "1,", "0 - 9", "٣"]
)
def test_the_pattern_of_the_form_refuses_what_the_parser_refuses(expression: str) -> None:
    assert not re.search(SHARDS_PATTERN, expression)
    with pytest.raises(BadShards):
        parse_shards(expression)


@pytest.mark.parametrize("word", ["", "all", "missing", "failed"])
def test_the_pattern_of_the_form_takes_the_words_that_are_resolved_later(word: str) -> None:
    assert re.search(SHARDS_PATTERN, word)


@pytest.mark.parametrize("record", [SPEC, FILES, PARQUET, STAGED], ids=lambda r: type(r).__name__)
def test_a_record_survives_json(
    record: ShardSpec | ShardFiles | ShardParquet | StagedShard,
) -> None:
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_shard_is_shown_with_five_digits() -> None:
    assert shard_label(42) == "shard 00042"
    assert SPEC.label == "shard 00007"


def test_records_of_a_run_that_an_earlier_release_planned_are_read() -> None:
    spec = SPEC.to_json()
    spec["vectors"], spec["dimension"] = ["image_embedding", "text_embedding"], 16
    inside = {**spec, "vectors": ["text_embedding"], "columns": {"text_embedding": "vector"}}
    parquet = {**PARQUET.to_json(), "spec": spec, "dimension": 16}

    assert ShardSpec.from_json(spec) == SPEC
    assert ShardSpec.from_json(inside).vectors == [Vector("text_embedding", 16, column="vector")]
    assert ShardParquet.from_json(parquet) == PARQUET


def test_the_order_of_vectors_survives_a_store_that_sorts_keys() -> None:
    """As PostgreSQL does, the shorter key first."""

    def by_length(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: by_length(value[key]) for key in sorted(value, key=len)}
        return [by_length(one) for one in value] if isinstance(value, list) else value

    read = StagedShard.from_json(by_length(json.loads(json.dumps(STAGED.to_json()))))

    assert read == STAGED
    assert list(read.parquet.dimensions) == ["image_embedding", "text_embedding"]
