"""Columns of a Parquet file as the base table has them: typed, and without nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion.errors import BadMetadata, WrongDimension

FloatArray = npt.NDArray[np.floating[Any]]

LIST_CHECKS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for damaged Parquet; the last is of a column's name."""


def text_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Null and absent become the empty string; everything else stays byte for byte."""
    if _is_absent(batch, name):
        return pa.repeat(pa.scalar("", pa.large_string()), len(batch))
    return pc.fill_null(batch[name].cast(pa.large_string()), "")


def similarity_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Null and absent become NaN."""
    if _is_absent(batch, name):
        return pa.repeat(pa.scalar(float("nan"), pa.float32()), len(batch))
    return pc.fill_null(batch[name].cast(pa.float32(), safe=False), float("nan"))


def size_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Null and absent become 0."""
    if _is_absent(batch, name):
        return pa.repeat(pa.scalar(0, pa.uint32()), len(batch))
    column = batch[name]
    if pa.types.is_floating(column.type):
        # As pandas writes integers with nulls among them.
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.fill_null(column.cast(pa.uint32()), 0)


def vector_dtype(schema: pa.Schema, name: str) -> np.dtype[Any]:
    """Return the dtype in which a column of vectors is kept: its own, or float32 for double.

    Raises BadMetadata when the column is absent or holds no lists of floats.
    """
    if name not in schema.names:
        raise BadMetadata(f"has no column {name!r}; its columns are {', '.join(schema.names)}")
    kind = schema.field(name).type
    if not any(check(kind) for check in LIST_CHECKS) or not pa.types.is_floating(kind.value_type):
        raise BadMetadata(f"column {name!r} holds {kind}, not lists of floats")
    return np.dtype(np.float16 if pa.types.is_float16(kind.value_type) else np.float32)


def vector_column(
    batch: pa.RecordBatch, name: str, dimension: int, dtype: np.dtype[Any]
) -> FloatArray:
    """Return lists of floats as a (rows, dimension) array of `dtype`.

    Raises BadMetadata for a null vector or component, WrongDimension for a list of another length.
    """
    column = batch[name]
    if column.null_count:
        raise BadMetadata(f"column {name!r} has {column.null_count} rows without a vector")
    lengths = pc.list_value_length(column)
    if len(column) and pc.min_max(lengths).as_py() != {"min": dimension, "max": dimension}:
        raise WrongDimension(
            f"column {name!r} has vectors of {pc.min(lengths)} to {pc.max(lengths)} dimensions, "
            f"{dimension} are expected; is this the right dataset?"
        )
    values = column.flatten()
    if values.null_count:
        raise BadMetadata(f"column {name!r} has vectors with null components")
    array: FloatArray = values.to_numpy(zero_copy_only=False).reshape(len(column), dimension)
    # A double that float32 cannot hold becomes infinite, and the vector a bad one.
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)


def _is_absent(batch: pa.RecordBatch, name: str) -> bool:
    return name not in batch.schema.names or pa.types.is_null(batch.schema.field(name).type)
