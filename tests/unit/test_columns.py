"""Columns of other people's Parquet files, as the base table has them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from laion.columns import (
    similarity_column,
    size_column,
    text_column,
    vector_column,
    vector_dtype,
)
from laion.errors import BadMetadata, WrongDimension

VECTORS = [[1.0, 0.0], [0.6, 0.8]]


def batch(values: object, kind: pa.DataType) -> pa.RecordBatch:
    return pa.record_batch({"v": pa.array(values, kind)})


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.list_(pa.float32()), np.float32),
        (pa.large_list(pa.float32()), np.float32),
        (pa.list_(pa.float32(), 2), np.float32),
        (pa.list_(pa.float16()), np.float16),
        (pa.list_(pa.float64()), np.float32),
    ],
)
def test_lists_of_floats_of_any_kind_are_vectors(kind: pa.DataType, dtype: type) -> None:
    rows = batch(
        np.array(VECTORS, np.float16).tolist()
        if dtype is np.float32
        else [list(map(np.float16, vector)) for vector in VECTORS],
        kind,
    )

    found = vector_column(rows, "v", 2, vector_dtype(rows.schema, "v"))

    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(VECTORS, np.float16).astype(dtype))


def test_a_slice_of_a_batch_has_its_own_rows() -> None:
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        rows = batch([[0.0, 1.0], *VECTORS], kind).slice(1)

        found = vector_column(rows, "v", 2, np.dtype(np.float32))

        np.testing.assert_array_equal(found, np.array(VECTORS, np.float32))


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.float32(), pa.string()])
def test_a_column_that_holds_no_vectors_is_named(kind: pa.DataType) -> None:
    with pytest.raises(BadMetadata, match=r"column 'v' holds .*, not lists of floats"):
        vector_dtype(pa.schema([("v", kind)]), "v")


def test_an_absent_column_is_told_with_those_there_are() -> None:
    with pytest.raises(BadMetadata, match="no column 'vector'; its columns are v"):
        vector_dtype(pa.schema([("v", pa.string())]), "vector")


@pytest.mark.parametrize("values", [[[1.0, 0.0], None], [[1.0, None]]])
def test_a_vector_or_a_component_that_is_null_is_refused(values: object) -> None:
    with pytest.raises(BadMetadata, match=r"without a vector|null components"):
        vector_column(batch(values, pa.list_(pa.float32())), "v", 2, np.dtype(np.float32))


@pytest.mark.parametrize("values", [[[1.0, 0.0], [1.0]], [[1.0, 0.0, 0.0]], [[]]])
def test_vectors_of_another_length_are_refused(values: object) -> None:
    with pytest.raises(WrongDimension, match="2 are expected"):
        vector_column(batch(values, pa.list_(pa.float32())), "v", 2, np.dtype(np.float32))


def test_a_double_that_float32_cannot_hold_becomes_infinite() -> None:
    rows = batch([[1e300, -1e300], [1e-300, 0.5]], pa.list_(pa.float64()))

    found = vector_column(rows, "v", 2, np.dtype(np.float32))

    np.testing.assert_array_equal(found, np.float32([[np.inf, -np.inf], [0, 0.5]]))


def test_absent_columns_are_filled() -> None:
    rows = batch([1, 2], pa.int64())

    assert text_column(rows, "caption").to_pylist() == ["", ""]
    assert size_column(rows, "width").to_pylist() == [0, 0]
    assert np.isnan(similarity_column(rows, "similarity").to_numpy()).all()
