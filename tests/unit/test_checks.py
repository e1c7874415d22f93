from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from laion.checks import VectorCheck, check_row_counts
from laion.errors import BadVectors, RowCountMismatch, TooManyRows
from laion.shards import ROWS_PER_SHARD_LIMIT
from tests.shard_files import unit_vectors

Array = npt.NDArray[Any]


class TestRowCounts:
    def test_counts_that_agree_are_returned(self) -> None:
        assert check_row_counts("shard 00001", {"image_embedding": 5, "metadata": 5}, 5) == 5

    def test_counts_that_differ_are_all_named(self) -> None:
        counts = {"image_embedding": 1000, "text_embedding": 999, "metadata": 1000}

        with pytest.raises(RowCountMismatch) as caught:
            check_row_counts("shard 00001", counts, 1001)
        for words in (
            "shard 00001",
            "image_embedding 1,000",
            "text_embedding 999",
            "metadata 1,000",
            "manifest 1,001",
        ):
            assert words in str(caught.value)

    def test_files_that_agree_on_another_count_than_the_manifest_are_refused(self) -> None:
        with pytest.raises(RowCountMismatch, match="manifest 6"):
            check_row_counts("shard 00001", {"metadata": 5}, 6)

    def test_a_shard_without_rows_is_refused(self) -> None:
        with pytest.raises(RowCountMismatch, match="no rows"):
            check_row_counts("shard 00001", {"metadata": 0}, None)

    def test_a_shard_with_more_rows_than_ids_is_refused(self) -> None:
        assert check_row_counts("shard 00001", {"metadata": ROWS_PER_SHARD_LIMIT}, None)
        with pytest.raises(TooManyRows, match="100,000,001 rows"):
            check_row_counts("shard 00001", {"metadata": ROWS_PER_SHARD_LIMIT + 1}, None)


def checked(images: Array, texts: Array | None = None, first_row: int = 0) -> VectorCheck:
    check = VectorCheck()
    check.add("image_embedding", first_row, images)
    if texts is not None:
        check.add("text_embedding", first_row, texts)
    return check


def with_values(values: dict[int, float], rows: int = 100) -> Array:
    vectors = unit_vectors(rows)
    for row, value in values.items():
        vectors[row, 3] = value
    return vectors


def scaled(rows: int, rows_off: int, factor: float) -> Array:
    vectors = unit_vectors(rows)
    vectors[:rows_off] *= factor
    return vectors


class TestVectors:
    def test_unit_vectors_pass(self) -> None:
        check = checked(unit_vectors(100), unit_vectors(100))

        check.judge("shard 00001", max_bad_vectors=0)

        assert (check.bad, check.norms_off) == (0, 0)

    def test_unit_vectors_rounded_to_float16_pass(self) -> None:
        rounded = unit_vectors(1000, dimension=512).astype(np.float16).astype(np.float32)

        assert checked(rounded).norms_off == 0

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_vector_with_a_value_that_is_not_finite_is_counted_with_its_place(
        self, value: float
    ) -> None:
        check = checked(with_values({7: value, 9: value}), first_row=8192)

        assert check.bad == 2
        assert check.first_bad == ("image_embedding", 8199)

    def test_a_zero_vector_is_counted_with_its_place(self) -> None:
        texts = unit_vectors(100)
        texts[42] = 0

        check = checked(unit_vectors(100), texts)

        assert check.bad == 1
        assert check.first_bad == ("text_embedding", 42)

    def test_the_first_bad_vector_stays_the_first(self) -> None:
        check = checked(with_values({7: np.nan}))

        check.add("text_embedding", 0, with_values({1: np.nan}))

        assert check.bad == 2
        assert check.first_bad == ("image_embedding", 7)

    def test_a_bad_vector_fails_the_shard_with_column_and_row(self) -> None:
        check = checked(with_values({7: np.nan}), first_row=8192)

        with pytest.raises(BadVectors, match=r"shard 00001: 1 .*image_embedding, row 8,199"):
            check.judge("shard 00001", max_bad_vectors=0)

    def test_bad_vectors_up_to_the_allowed_number_pass(self) -> None:
        checked(with_values({7: np.nan, 9: np.inf})).judge("shard 00001", max_bad_vectors=2)

    def test_one_bad_vector_more_than_allowed_fails(self) -> None:
        check = checked(with_values({7: np.nan, 9: np.inf}))

        with pytest.raises(BadVectors, match=r"1 are allowed.*max_bad_vectors"):
            check.judge("shard 00001", max_bad_vectors=1)

    @pytest.mark.parametrize("factor", [0.99, 1.01, 20.0])
    def test_lengths_off_are_counted_but_pass_up_to_a_thousandth(self, factor: float) -> None:
        check = checked(scaled(2000, rows_off=2, factor=factor))

        check.judge("shard 00001", max_bad_vectors=0)

        assert (check.norms_off, check.bad) == (2, 0)

    def test_the_limit_is_of_one_column_not_of_both(self) -> None:
        check = checked(scaled(2000, rows_off=3, factor=1.01))
        check.add("text_embedding", 0, unit_vectors(2000))

        with pytest.raises(BadVectors, match="3 of 2,000"):
            check.judge("shard 00001", 0)

    def test_lengths_off_above_a_thousandth_fail(self) -> None:
        check = checked(scaled(2000, rows_off=3, factor=1.01))

        with pytest.raises(
            BadVectors, match=r"3 of 2,000 vectors of image_embedding are not of unit length"
        ):
            check.judge("shard 00001", max_bad_vectors=0)

    def test_bad_vectors_are_not_counted_again_as_lengths_off(self) -> None:
        assert checked(with_values({7: np.nan})).norms_off == 0
