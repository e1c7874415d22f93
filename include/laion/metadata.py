"""Columns of a metadata file as the base table has them: found, typed, and without nulls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from laion.columns import COLUMNS, Column
from laion.errors import BadMetadata, WrongDimension

FloatArray = npt.NDArray[np.floating[Any]]

LIST_CHECKS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)

UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for damaged Parquet; the last is of a column's name."""

ALIASES = {column.name: column.aliases for column in COLUMNS}

LEFT_OUT = ""
"""What a profile names for a column that is not to be looked for in the file."""


@dataclass(frozen=True)
class ColumnMap:
    """Which column of a metadata file is which of the base table's.

    `theirs` has the file's name by ours. `absent` are ours that the file lacks, or has as a column
    of type null: every row gets the empty string, 0 or NaN. `ignored` are the file's that go
    nowhere.
    """

    theirs: Mapping[str, str]
    absent: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def renamed(self) -> dict[str, str]:
        """The columns that the file names otherwise, the file's name by ours."""
        return {ours: theirs for ours, theirs in self.theirs.items() if ours != theirs}

    def describe(self) -> str:
        """Return in sentences what is taken under another name, absent and ignored."""
        renamed = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in self.renamed.items())
        sentences = {
            "Taken under another name": renamed,
            "Not in the file, so empty, 0 or NaN in every row": ", ".join(self.absent),
            "In the file and not loaded": ", ".join(self.ignored),
        }
        return " ".join(f"{what}: {names}." for what, names in sentences.items() if names)


def map_columns(
    schema: pa.Schema,
    wanted: Sequence[str],
    given: Mapping[str, str] | None = None,
    required: Collection[str] = (),
) -> ColumnMap:
    """Find each of the `wanted` columns in a file: by the `given` name, by its own, by an alias.

    Raises BadMetadata when a given name is not in the file, a required column is not found, or
    two columns of the file could be the same one.
    """
    chosen = dict(given or {})
    listed = f"its columns are {', '.join(schema.names)}"
    theirs = {}
    for ours in wanted:
        if chosen.get(ours) == LEFT_OUT:
            continue
        if ours in chosen:
            if chosen[ours] not in schema.names:
                raise BadMetadata(
                    f"has no column {chosen[ours]!r}, which the profile names for {ours}; {listed}"
                )
            found = [chosen[ours]]
        else:
            found = _find_column(schema, ours, chosen.values())
        if len(found) > 1 or (found and schema.names.count(found[0]) > 1):
            candidates = " and ".join(repr(name) for name in found)
            raise BadMetadata(
                f"has more than one column that could be {ours}: {candidates}; {listed}. Rename "
                "one, or name the right one under `columns` of a profile of your own; '' for none"
            )
        if found:
            theirs[ours] = found[0]
    taken = set(theirs.values())
    theirs = {o: t for o, t in theirs.items() if not pa.types.is_null(schema.field(t).type)}
    for ours in required:
        if ours not in theirs:
            raise BadMetadata(
                f"has no column {ours!r} with values, which the dataset's profile requires; "
                f"{listed}. If one of them is it under another name, say so under `columns` of a "
                "profile of your own; or take `required_columns` out of it"
            )
    return ColumnMap(
        theirs=theirs,
        absent=tuple(ours for ours in wanted if ours not in theirs),
        ignored=tuple(name for name in dict.fromkeys(schema.names) if name not in taken),
    )


def _find_column(schema: pa.Schema, ours: str, taken: Collection[str]) -> list[str]:
    """Return the names in a file that a column may have: its exact name, or all others.

    A nested column under another name is something else, and so is one that the profile names.
    """
    if ours in schema.names:
        return [ours] * min(2, schema.names.count(ours))
    names = (ours.lower(), *ALIASES.get(ours, ()))
    free = [
        field.name
        for field in schema
        if field.name not in taken and not pa.types.is_nested(field.type)
    ]
    same = [name for name in free if name.lower() == names[0]]
    return same or [name for name in free if name.lower() in names]


def has_value(column: pa.Array | pa.ChunkedArray) -> bool:
    """Return whether any row of a column of the base table is not empty, 0 or NaN."""
    if pa.types.is_large_string(column.type):
        return bool(pc.any(pc.greater(pc.binary_length(column), 0)).as_py())
    return bool(pc.any(pc.greater(pc.abs(column), 0)).as_py())


def arrow_type(column: Column) -> pa.DataType:
    """Return the type of a column of the base table in Arrow."""
    return pa.type_for_alias(column.type.arrow)


def read_column(batch: pa.RecordBatch, column: Column, name: str | None) -> pa.Array:
    """Return a column of the base table from the file's column `name`; None where it has none.

    Null and absent become the type's value for missing; everything else stays byte for byte.
    Raises BadMetadata.
    """
    kind, missing = arrow_type(column), column.type.missing
    if name is None:
        return pa.repeat(pa.scalar(missing, kind), len(batch))
    return pc.fill_null(_cast(batch, name, kind), missing)


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


def _cast(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """Return a column as another type. Raises BadMetadata, naming it."""
    column = batch[name]
    is_rounded = pa.types.is_floating(kind)
    if pa.types.is_floating(column.type) and not is_rounded:
        # pandas writes integers with nulls among them so.
        column = pc.if_else(pc.is_nan(column), None, column)
    try:
        return column.cast(kind, safe=not is_rounded)
    except UNREADABLE as error:
        raise BadMetadata(
            f"column {name!r} cannot be read as {kind}: {error}. To load the rows without it, name "
            "'' for its column of the table under `columns` of a profile of your own"
        ) from error
