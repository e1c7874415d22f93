"""Turn the files of a shard into one Parquet file, checking every row on the way.

Vectors are stored as the source's own bytes in FixedSizeBinary(dimension * itemsize) columns,
little endian, because writing Parquet lists of floats costs several times the CPU of writing
bytes. Each column's metadata `laion.dtype` names the element type; docs/parquet.md shows how to
read them in one line, in pyarrow, polars, DuckDB and ClickHouse.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion import __version__
from laion.checks import AlignmentCheck, VectorCheck, check_row_counts
from laion.columns import COLUMNS, NAMES
from laion.errors import BadMetadata, StagingGone, WrongDimension
from laion.metadata import (
    UNREADABLE,
    ColumnMap,
    arrow_type,
    has_value,
    map_columns,
    read_column,
    vector_column,
    vector_dtype,
)
from laion.npy import FloatArray, forget_pages, open_embeddings
from laion.shards import ROWS_PER_SHARD_LIMIT, Alignment, ShardFiles, ShardParquet, ShardSpec
from laion.storage import disk_full_as_error
from laion.vectors import IMAGE, TEXT, Dimensions, Vector

log = logging.getLogger(__name__)

BATCH_ROWS = 4096
"""Rows in memory at once: 8 MB per float32 copy of a 512-d column."""


@dataclass(frozen=True)
class Rules:
    """What a run allows, from its params."""

    max_bad_vectors: int = 0
    strict_alignment: bool = False
    accept_misaligned: bool = False


def convert_shard(files: ShardFiles, target: Path, rules: Rules | None = None) -> ShardParquet:
    """Write `target` from the files of a shard and return what is in it.

    The file appears under its name only when it is complete. Raises FormatError (bad npy or
    metadata, differing row counts, wrong dimension, bad vectors, misalignment), StagingGone
    when a staged file no longer exists, DiskFull.
    """
    allowed = rules or Rules()
    label = files.spec.label
    shard = _open_shard(files)
    rows = check_row_counts(label, shard.rows_of, files.spec.rows)
    vector_check, alignment = VectorCheck(), AlignmentCheck()
    without_value = set(files.spec.required)
    part = target.with_name(target.name + ".part")
    schema = _schema(files, shard)
    try:
        with (
            disk_full_as_error(
                target.parent, f"{target.name} needs about {rows * shard.row_bytes:,} bytes"
            ),
            part.open("wb") as file,
        ):
            with pq.ParquetWriter(
                file,
                schema,
                # Vectors are as good as random: trying costs CPU and saves nothing.
                compression={name: "zstd" for name in schema.names if name not in shard.dtypes},
                use_dictionary=False,
                write_statistics=False,
                # A disk may give back other bytes than it was given; the load checks.
                write_page_checksum=True,
            ) as writer:
                first = 0
                for table, raw in _batches(shard):
                    as_float32 = {role: a.astype(np.float32) for role, a in raw.items()}
                    lengths = {r: vector_check.add(r, first, a) for r, a in as_float32.items()}
                    if shard.has_pair:
                        alignment.add(
                            as_float32[IMAGE],
                            as_float32[TEXT],
                            lengths[IMAGE] * lengths[TEXT],
                            table["similarity"].to_numpy(),
                        )
                    without_value -= {n for n in without_value if has_value(table[n])}
                    last = first + len(table)
                    ids = files.spec.shard * ROWS_PER_SHARD_LIMIT + np.arange(first, last)
                    columns = [pa.array(ids, pa.int64()), *table.columns]
                    columns += [_as_bytes(array) for array in raw.values()]
                    writer.write_table(pa.table(columns, schema=schema))
                    for array in shard.arrays.values():
                        forget_pages(array)
                    first = last
            file.flush()
            os.fsync(file.fileno())
        check_row_counts(label, {**shard.rows_of, "rows written": first}, None)
        _check_required(shard, without_value)
        vector_check.judge(label, allowed.max_bad_vectors)
        verdict = alignment.judge(
            label,
            strict=allowed.strict_alignment,
            accept_misaligned=allowed.accept_misaligned,
        )
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(target)
    if told := shard.columns.describe():
        log.info("%s: %s", label, told)
    if vector_check.norms_off:
        log.warning("%s: %d vectors are not of unit length", label, vector_check.norms_off)
    if verdict in (Alignment.MISALIGNED, Alignment.UNCLEAR):
        log.warning("%s: %s", label, alignment.describe())
    return ShardParquet(
        spec=replace(files.spec, vectors=shard.described_vectors),
        attempt=files.attempt,
        path=str(target),
        rows=rows,
        size=target.stat().st_size,
        rows_of=shard.rows_of,
        bad_vectors=vector_check.bad,
        norms_off=vector_check.norms_off,
        alignment=verdict,
    )


def inspect_shard(files: ShardFiles) -> int:
    """Return the rows of a shard after reading no more than headers and footers.

    Finds truncated, foreign and mismatched files before any work is spent on them. Raises as
    `convert_shard` does.
    """
    return check_row_counts(files.spec.label, _open_shard(files).rows_of, files.spec.rows)


@dataclass(frozen=True)
class _OpenShard:
    """The files of a shard, open: `arrays` are the vectors with a file of their own.

    `columns` has the columns of the metadata file, and the vectors that lie there. `dtypes` has
    every vector of the shard, in the order of the base table's columns.
    """

    spec: ShardSpec
    metadata: pq.ParquetFile
    columns: ColumnMap
    arrays: dict[str, FloatArray]
    dtypes: dict[str, np.dtype[Any]]
    dimensions: Dimensions

    @property
    def described_vectors(self) -> list[Vector]:
        """The vectors, with the dimensions that they have."""
        return [replace(v, dimension=self.dimensions[v.name]) for v in self.spec.vectors]

    @property
    def has_pair(self) -> bool:
        """Whether it has vectors of picture and caption, of one space."""
        image = self.dimensions.get(IMAGE)
        return image is not None and image == self.dimensions.get(TEXT)

    @property
    def rows_of(self) -> dict[str, int]:
        counts = {role: len(array) for role, array in self.arrays.items()}
        return {**counts, "metadata": self.metadata.metadata.num_rows}

    @property
    def row_bytes(self) -> int:
        return sum(self.dimensions[name] * dtype.itemsize for name, dtype in self.dtypes.items())


def _open_shard(files: ShardFiles) -> _OpenShard:
    spec, label = files.spec, files.spec.label
    for path in files.paths.values():
        if not Path(path).is_file():
            raise StagingGone(
                f"{label}: {path} is not there any more; clear this task to fetch it again"
            )
    arrays = {
        vector.name: open_embeddings(Path(files.paths[vector.name]))
        for vector in spec.vectors
        if not vector.column
    }
    dimensions = _check_dimensions(spec, arrays)
    metadata = _open_metadata(Path(files.paths["metadata"]))
    with _labelled(label):
        columns = map_spec_columns(metadata.schema_arrow, spec)
        dtypes = {
            vector.name: vector_dtype(metadata.schema_arrow, vector.column)
            if vector.column
            else arrays[vector.name].dtype
            for vector in spec.vectors
        }
    return _OpenShard(spec, metadata, columns, arrays, dtypes, dimensions)


def map_spec_columns(schema: pa.Schema, spec: ShardSpec) -> ColumnMap:
    """Find the columns of a shard's metadata file that its plan asks for. Raises BadMetadata."""
    wanted, given = (*NAMES, *spec.inside), {**spec.columns, **spec.inside}
    return map_columns(schema, wanted, given, spec.required)


def _check_required(shard: _OpenShard, without_value: set[str]) -> None:
    for ours in sorted(without_value):
        raise BadMetadata(
            f"{shard.spec.label}: metadata: column {shard.columns.theirs[ours]!r} has no value in "
            f"any of {shard.metadata.metadata.num_rows:,} rows, and the dataset's profile requires "
            f"{ours}. Fetch the shard from another source, or take it out of `required_columns` in "
            "a profile of your own"
        )


def _check_dimensions(spec: ShardSpec, arrays: dict[str, FloatArray]) -> Dimensions:
    """Return the dimension of every vector; of those of which it is not known, by their files."""
    found = {name: array.shape[1] for name, array in arrays.items()}
    dimensions: Dimensions = {}
    for vector in spec.vectors:
        wanted = vector.dimension or found.get(vector.name)
        assert wanted is not None, f"{vector.name} lies inside, and its dimension is given"
        if found.get(vector.name, wanted) != wanted:
            raise WrongDimension(
                f"{spec.label}: {vector.name} has {found[vector.name]} dimensions, {wanted} are "
                "expected; is this the right dataset?"
            )
        dimensions[vector.name] = wanted
    return dimensions


def _open_metadata(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except UNREADABLE as error:
        raise BadMetadata(f"{path} is no Parquet file: {error}") from error


def _batches(shard: _OpenShard) -> Iterator[tuple[pa.Table, dict[str, FloatArray]]]:
    """Yield, batch by batch, the metadata columns of the base table and the vectors of its rows."""
    spec, theirs = shard.spec, shard.columns.theirs
    first = 0
    with _labelled(spec.label):
        for batch in shard.metadata.iter_batches(BATCH_ROWS, columns=list(set(theirs.values()))):
            table = pa.table(
                {own.name: read_column(batch, own, theirs.get(own.name)) for own in COLUMNS}
            )
            last = first + len(batch)
            yield (
                table,
                {
                    name: shard.arrays[name][first:last]
                    if name in shard.arrays
                    else vector_column(batch, spec.inside[name], shard.dimensions[name], dtype)
                    for name, dtype in shard.dtypes.items()
                },
            )
            first = last


@contextmanager
def _labelled(label: str) -> Iterator[None]:
    """Name the shard, and the file, in what is wrong with a metadata file."""
    try:
        yield
    except (BadMetadata, WrongDimension) as error:
        raise type(error)(f"{label}: metadata: {error}") from error
    except UNREADABLE as error:
        raise BadMetadata(f"{label}: metadata: {error}") from error


def _schema(files: ShardFiles, shard: _OpenShard) -> pa.Schema:
    fields = [pa.field("id", pa.int64(), nullable=False)]
    fields += [pa.field(own.name, arrow_type(own), nullable=False) for own in COLUMNS]
    fields += [
        pa.field(
            name,
            pa.binary(shard.dimensions[name] * dtype.itemsize),
            nullable=False,
            metadata={"laion.dtype": f"<f{dtype.itemsize}"},
        )
        for name, dtype in shard.dtypes.items()
    ]
    return pa.schema(
        fields,
        metadata={
            "laion.dataset": files.spec.dataset,
            "laion.shard": str(files.spec.shard),
            "laion.version": __version__,
            "laion.source": json.dumps(files.origins),
        },
    )


def _as_bytes(vectors: FloatArray) -> pa.FixedSizeBinaryArray:
    """Return rows of a (rows, dimension) array as little-endian bytes, without copying if C."""
    little = np.ascontiguousarray(vectors, dtype=vectors.dtype.newbyteorder("<"))
    width = little.shape[1] * little.dtype.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(little), [None, pa.py_buffer(little)]
    )
