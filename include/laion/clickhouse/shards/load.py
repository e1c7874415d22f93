"""From the Parquet file of a shard into its staging table, streamed over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.derived import make_staging_table
from laion.clickhouse.identifiers import quote_identifier, staging_table
from laion.clickhouse.schema import column_types
from laion.errors import StagingGone
from laion.metadata import UNREADABLE
from laion.shards import ShardParquet, StagedShard, shard_label
from laion.vectors import Dimensions

log = logging.getLogger(__name__)

BATCH_ROWS = 2048
"""Rows in memory at once: 4 MB of 512-d float16 vectors, which the CPU's cache can hold."""

READ_BUFFER_BYTES = 1 << 20

INSERT_SETTINGS = {
    # An asynchronous insert would be acknowledged before the rows can be counted.
    "async_insert": 0,
    "max_insert_threads": 1,
    # Blocks of 64 MiB: four loads at once keep the embedded ClickHouse below 1.5 GB.
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 64 << 20,
}


def load_shard(client: Client, shard: ShardParquet, *, try_number: int = 1) -> StagedShard:
    """Fill the staging table of an attempt from its Parquet file, anew on every call.

    Memory is bounded by one batch. The query id carries table, shard, attempt and try.
    Raises StagingGone when the file no longer exists or is damaged, ClickHouseError.
    """
    spec, path = shard.spec, Path(shard.path)
    if not path.is_file():
        raise StagingGone(
            f"{spec.label}: {path} is not there any more; clear this task to fetch and convert it "
            "again"
        )
    staging = make_staging(client, shard)
    rounded = rounded_vectors(client, staging)
    with (
        _open_parquet(path, spec.shard) as parquet,
        typed_errors(f"load {spec.label} into {staging}"),
    ):
        columns = _stream_schema(parquet, shard.dimensions, rounded).names
        summary = client.raw_insert(
            quote_identifier(staging),
            column_names=columns,
            # The driver's types say bytes; anything with a buffer is sent as it is.
            insert_block=cast(Any, stream_shard(parquet, spec.shard, shard.dimensions, rounded)),
            fmt="ArrowStream",
            settings=insert_settings(shard, try_number),
        )
    log.info("%s: %d rows into %s", spec.label, summary.written_rows, staging)
    return StagedShard(parquet=shard, staging_table=staging, rows_written=summary.written_rows)


def make_staging(client: Client, shard: ShardParquet) -> str:
    """Make the staging table of an attempt, empty, and return its name."""
    spec = shard.spec
    staging = staging_table(spec.table, spec.shard, shard.attempt)
    make_staging_table(client, spec.table, staging)
    return staging


def rounded_vectors(client: Client, table: str) -> frozenset[str]:
    """Return the vectors that a table holds as BFloat16."""
    types = column_types(client, table)
    return frozenset(name for name, kind in types.items() if "BFloat16" in kind)


def insert_settings(shard: ShardParquet, try_number: int) -> dict[str, Any]:
    """Return the settings of the INSERT of one try."""
    spec = shard.spec
    return {
        **INSERT_SETTINGS,
        "query_id": load_query_id(spec.table, spec.shard, shard.attempt, try_number),
        "insert_deduplication_token": f"{spec.shard}-{shard.attempt}-{try_number}",
    }


def load_query_id(table: str, shard: int, attempt: str, try_number: int) -> str:
    """Return the id of the INSERT of one try, by which the server's query log has it."""
    return f"laion-load-{staging_table(table, shard, attempt)}-{try_number}"


def stream_shard(
    parquet: pq.ParquetFile,
    number: int,
    dimensions: Dimensions,
    rounded: Collection[str] = (),
) -> Generator[memoryview, None, None]:
    """Yield an Arrow IPC stream of the file's rows, piece by piece, without copying vectors.

    Vectors keep the source's float16 or float32: ClickHouse widens them for less CPU than it
    costs here, and float16 is half the bytes on the way. The vectors named by `rounded` become
    float32 that a BFloat16 column holds exactly.
    """
    schema = _stream_schema(parquet, dimensions, rounded)
    sink = _Pieces()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in _read_batches(parquet, number):
            columns = [
                _vectors(batch[name], schema.field(name).type, name in rounded)
                if name in dimensions
                else batch[name]
                for name in batch.schema.names
            ]
            columns.append(pa.array(np.full(len(batch), number, np.uint16)))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            yield from sink.take()
    yield from sink.take()


def round_to_bfloat16(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return the bfloat16 nearest to each value, ties to even, as float32 of the same shape.

    ClickHouse itself would cut off the lower bits, which is twice the error and always towards 0.
    NaN stays NaN; what is beyond the largest bfloat16 becomes infinite, as IEEE 754 rounds.
    """
    bits = values.astype(np.float32).view(np.uint32)
    is_nan = np.isnan(values)
    bits += 0x7FFF + ((bits >> 16) & 1)
    bits &= 0xFFFF0000
    bits[is_nan] = 0x7FC00000
    return bits.view(np.float32)


@contextmanager
def _open_parquet(path: Path, number: int) -> Iterator[pq.ParquetFile]:
    try:
        parquet = pq.ParquetFile(
            path,
            buffer_size=READ_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except UNREADABLE as error:
        raise _damaged(number, error) from error
    with parquet:
        yield parquet


def _read_batches(parquet: pq.ParquetFile, number: int) -> Iterator[pa.RecordBatch]:
    try:
        yield from parquet.iter_batches(BATCH_ROWS)
    except UNREADABLE as error:
        raise _damaged(number, error) from error


def _damaged(number: int, error: Exception) -> StagingGone:
    return StagingGone(
        f"{shard_label(number)}: its staged Parquet file was damaged after it was written "
        f"({error}); look at the disk of LAION_STAGING_URI, and clear this task to fetch and "
        "convert the shard again"
    )


def _stream_schema(
    parquet: pq.ParquetFile, dimensions: Dimensions, rounded: Collection[str] = ()
) -> pa.Schema:
    fields = []
    for column in parquet.schema_arrow:
        kind = column.type
        if dimension := dimensions.get(column.name):
            stored = _element_type(kind, dimension)
            kind = _vector_type(pa.float32() if column.name in rounded else stored, dimension)
        fields.append(pa.field(column.name, kind, nullable=False))
    return pa.schema([*fields, pa.field("shard", pa.uint16(), nullable=False)])


def _element_type(stored: pa.FixedSizeBinaryType, dimension: int) -> pa.DataType:
    return {2: pa.float16(), 4: pa.float32()}[stored.byte_width // dimension]


def _vector_type(element: pa.DataType, dimension: int) -> pa.FixedSizeListType:
    return pa.list_(pa.field("element", element, nullable=False), dimension)


def _vectors(
    column: pa.FixedSizeBinaryArray, vector: pa.FixedSizeListType, is_rounded: bool
) -> pa.Array:
    """Return the bytes of a column as the vectors that they are, or as what they round to."""
    dimension = vector.list_size
    values = pa.Array.from_buffers(
        _element_type(column.type, dimension),
        len(column) * dimension,
        [None, column.buffers()[1]],
        offset=column.offset * dimension,
    )
    if is_rounded:
        values = pa.array(round_to_bfloat16(values.to_numpy()))
    return pa.FixedSizeListArray.from_arrays(values, type=vector)


class _Pieces:
    """A file that Arrow writes into and the HTTP client reads out of."""

    closed = False

    def __init__(self) -> None:
        self._written: list[memoryview] = []

    def write(self, data: pa.Buffer) -> int:
        self._written.append(memoryview(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do: pieces are taken, not flushed."""

    def take(self) -> list[memoryview]:
        """Return what was written since the last call."""
        taken, self._written = self._written, []
        return taken
