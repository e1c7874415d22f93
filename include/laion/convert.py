"""Turn the three files of a shard into one Parquet file, checking every row on the way.

Vectors are stored as the source's own bytes in FixedSizeBinary(dimension * itemsize) columns,
little endian, because writing Parquet lists of floats costs several times the CPU of writing
bytes. Each column's metadata `laion.dtype` names the element type. To read them as vectors:

    numpy       np.frombuffer(column.combine_chunks().buffers()[1], "<f2").reshape(rows, -1)
    ClickHouse  reinterpret(image_embedding, 'Array(Float32)') where `laion.dtype` is `<f4`
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from laion import __version__
from laion.checks import AlignmentCheck, VectorCheck, check_row_counts
from laion.errors import BadMetadata, StagingGone, WrongDimension
from laion.npy import FloatArray, forget_pages, open_embeddings
from laion.shards import ROWS_PER_SHARD_LIMIT, VECTORS, ShardFiles, ShardParquet
from laion.storage import disk_full_as_error

log = logging.getLogger(__name__)

BATCH_ROWS = 4096
"""Rows in memory at once: 8 MB per float32 copy of a 512-d column."""

TEXT_COLUMNS = ("url", "caption", "NSFW", "LICENSE", "key")
SIZE_COLUMNS = ("width", "height", "original_width", "original_height")


@dataclass(frozen=True)
class Rules:
    """What a run allows, from its params."""

    max_bad_vectors: int = 0
    strict_alignment: bool = False


def convert_shard(files: ShardFiles, target: Path, rules: Rules | None = None) -> ShardParquet:
    """Write `target` from the files of a shard and return what is in it.

    The file appears under its name only when it is complete. Raises FormatError (bad npy or
    metadata, differing row counts, wrong dimension, bad vectors, misalignment), StagingGone
    when a staged file no longer exists, DiskFull.
    """
    allowed = rules or Rules()
    label = files.spec.label
    vectors, metadata, rows_of = _open_shard(files)
    rows = check_row_counts(label, rows_of, files.spec.rows)
    dimension = vectors["image_embedding"].shape[1]
    vector_check, alignment = VectorCheck(), AlignmentCheck()
    part = target.with_name(target.name + ".part")
    schema = _schema(files, dimension, vectors)
    try:
        with (
            disk_full_as_error(
                target.parent, f"{target.name} needs about {_size(vectors):,} bytes"
            ),
            part.open("wb") as file,
        ):
            with pq.ParquetWriter(
                file, schema, compression="none", use_dictionary=False, write_statistics=False
            ) as writer:
                first = 0
                for table in _metadata_batches(label, metadata):
                    last = first + len(table)
                    raw = {role: array[first:last] for role, array in vectors.items()}
                    as_float32 = {role: a.astype(np.float32) for role, a in raw.items()}
                    for role, block in as_float32.items():
                        vector_check.add(role, first, block)
                    alignment.add(
                        as_float32["image_embedding"],
                        as_float32["text_embedding"],
                        table["similarity"].to_numpy(),
                    )
                    ids = files.spec.shard * ROWS_PER_SHARD_LIMIT + np.arange(first, last)
                    columns = [pa.array(ids, pa.int64()), *table.columns]
                    columns += [_as_bytes(raw[role]) for role in VECTORS]
                    writer.write_table(pa.table(columns, schema=schema))
                    for array in vectors.values():
                        forget_pages(array)
                    first = last
            file.flush()
            os.fsync(file.fileno())
        check_row_counts(label, {**rows_of, "rows written": first}, None)
        vector_check.judge(label, allowed.max_bad_vectors)
        verdict = alignment.judge(label, strict=allowed.strict_alignment)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(target)
    if vector_check.norms_off:
        log.warning("%s: %d vectors are not of unit length", label, vector_check.norms_off)
    if verdict == "unclear":
        log.warning("%s: %s", label, alignment.describe())
    return ShardParquet(
        spec=files.spec,
        attempt=files.attempt,
        path=str(target),
        rows=rows,
        size=target.stat().st_size,
        dimension=dimension,
        rows_of=rows_of,
        bad_vectors=vector_check.bad,
        norms_off=vector_check.norms_off,
        alignment=verdict,
    )


def inspect_shard(files: ShardFiles) -> int:
    """Return the rows of a shard after reading no more than headers and footers.

    Finds truncated, foreign and mismatched files before any work is spent on them. Raises as
    `convert_shard` does.
    """
    _, _, rows_of = _open_shard(files)
    return check_row_counts(files.spec.label, rows_of, files.spec.rows)


def _open_shard(
    files: ShardFiles,
) -> tuple[dict[str, FloatArray], pq.ParquetFile, dict[str, int]]:
    """Open the three files; return vectors by role, the metadata, and the rows of each file."""
    label = files.spec.label
    for path in files.paths.values():
        if not Path(path).is_file():
            raise StagingGone(
                f"{label}: {path} is not there any more; clear the shard's download_shard task to "
                "fetch it again"
            )
    vectors = {role: open_embeddings(Path(files.paths[role])) for role in VECTORS}
    _check_dimension(label, vectors, files.spec.dimension)
    metadata = _open_metadata(Path(files.paths["metadata"]))
    rows_of = {role: len(array) for role, array in vectors.items()}
    rows_of["metadata"] = metadata.metadata.num_rows
    return vectors, metadata, rows_of


def _check_dimension(label: str, vectors: dict[str, FloatArray], expected: int | None) -> None:
    found = {role: array.shape[1] for role, array in vectors.items()}
    wanted = expected or found["image_embedding"]
    for role, dimension in found.items():
        if dimension != wanted:
            raise WrongDimension(
                f"{label}: {role} has {dimension} dimensions, {wanted} are expected; is this the "
                "right dataset?"
            )


def _open_metadata(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise BadMetadata(f"{path} is no Parquet file: {error}") from error


def _metadata_batches(label: str, metadata: pq.ParquetFile) -> Iterator[pa.Table]:
    """Yield the metadata columns of the base table, typed and without nulls, batch by batch."""
    names = metadata.schema_arrow.names
    wanted = [n for n in (*TEXT_COLUMNS, *SIZE_COLUMNS, "similarity") if n in names]
    try:
        for batch in metadata.iter_batches(BATCH_ROWS, columns=wanted):
            yield pa.table(
                {
                    **{n: _text(batch, n) for n in TEXT_COLUMNS},
                    "similarity": _similarity(batch),
                    **{n: _size_column(batch, n) for n in SIZE_COLUMNS},
                }
            )
    except (pa.ArrowException, OSError) as error:
        raise BadMetadata(f"{label}: metadata: {error}") from error


def _text(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Null and absent become the empty string; everything else stays byte for byte."""
    if name not in batch.schema.names or pa.types.is_null(batch.schema.field(name).type):
        return pa.repeat(pa.scalar("", pa.large_string()), len(batch))
    return pc.fill_null(batch[name].cast(pa.large_string()), "")


def _similarity(batch: pa.RecordBatch) -> pa.Array:
    """Null and absent become NaN."""
    name = "similarity"
    if name not in batch.schema.names or pa.types.is_null(batch.schema.field(name).type):
        return pa.repeat(pa.scalar(float("nan"), pa.float32()), len(batch))
    return pc.fill_null(batch[name].cast(pa.float32(), safe=False), float("nan"))


def _size_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Null and absent become 0."""
    if name not in batch.schema.names or pa.types.is_null(batch.schema.field(name).type):
        return pa.repeat(pa.scalar(0, pa.uint32()), len(batch))
    column = batch[name]
    if pa.types.is_floating(column.type):
        # As pandas writes integers with nulls among them.
        column = pc.if_else(pc.is_nan(column), None, column)
    return pc.fill_null(column.cast(pa.uint32()), 0)


def _schema(files: ShardFiles, dimension: int, vectors: dict[str, FloatArray]) -> pa.Schema:
    fields = [pa.field("id", pa.int64(), nullable=False)]
    fields += [pa.field(n, pa.large_string(), nullable=False) for n in TEXT_COLUMNS]
    fields += [pa.field("similarity", pa.float32(), nullable=False)]
    fields += [pa.field(n, pa.uint32(), nullable=False) for n in SIZE_COLUMNS]
    fields += [
        pa.field(
            role,
            pa.binary(dimension * array.dtype.itemsize),
            nullable=False,
            metadata={"laion.dtype": f"<f{array.dtype.itemsize}"},
        )
        for role, array in vectors.items()
    ]
    return pa.schema(
        fields,
        metadata={
            "laion.dataset": files.spec.dataset,
            "laion.shard": str(files.spec.shard),
            "laion.version": __version__,
        },
    )


def _as_bytes(vectors: FloatArray) -> pa.FixedSizeBinaryArray:
    """Return rows of a (rows, dimension) array as little-endian bytes, without copying if C."""
    little = np.ascontiguousarray(vectors, dtype=vectors.dtype.newbyteorder("<"))
    width = little.shape[1] * little.dtype.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(little), [None, pa.py_buffer(little)]
    )


def _size(vectors: dict[str, FloatArray]) -> int:
    return sum(array.nbytes for array in vectors.values())
