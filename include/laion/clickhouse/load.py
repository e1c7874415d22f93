"""From the Parquet file of a shard into its staging table, streamed over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, staging_table
from laion.clickhouse.statements import statement
from laion.errors import StagingGone
from laion.shards import VECTORS, ShardParquet, StagedShard

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
    Raises StagingGone when the file no longer exists, ClickHouseError.
    """
    spec, path = shard.spec, Path(shard.path)
    if not path.is_file():
        raise StagingGone(
            f"{spec.label}: {path} is not there any more; clear the shard's download_shard task to "
            "fetch and convert it again"
        )
    staging = staging_table(spec.table, spec.shard, shard.attempt)
    with (
        pq.ParquetFile(path, buffer_size=READ_BUFFER_BYTES, pre_buffer=False) as parquet,
        typed_errors(f"load {spec.label} into {staging}"),
    ):
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(staging)} SYNC")
        client.command(statement("create_staging", staging=staging, table=spec.table))
        client.command(statement("keep_parts", staging=staging))
        columns = _stream_schema(parquet, shard.dimension).names
        summary = client.raw_insert(
            quote_identifier(staging),
            column_names=columns,
            # The driver's types say bytes; anything with a buffer is sent as it is.
            insert_block=cast(Any, stream_shard(parquet, spec.shard, shard.dimension)),
            fmt="ArrowStream",
            settings={
                **INSERT_SETTINGS,
                "query_id": f"laion-load-{staging}-{try_number}",
                "insert_deduplication_token": f"{spec.shard}-{shard.attempt}-{try_number}",
            },
        )
    log.info("%s: %d rows into %s", spec.label, summary.written_rows, staging)
    return StagedShard(parquet=shard, staging_table=staging, rows_written=summary.written_rows)


def stream_shard(
    parquet: pq.ParquetFile, number: int, dimension: int
) -> Generator[memoryview, None, None]:
    """Yield an Arrow IPC stream of the file's rows, piece by piece, without copying vectors.

    Vectors keep the source's float16 or float32: ClickHouse widens them for less CPU than it
    costs here, and float16 is half the bytes on the way.
    """
    schema = _stream_schema(parquet, dimension)
    sink = _Pieces()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in parquet.iter_batches(BATCH_ROWS):
            columns = [
                _vectors(batch[name], schema.field(name).type) if name in VECTORS else batch[name]
                for name in batch.schema.names
            ]
            columns.append(pa.array(np.full(len(batch), number, np.uint16)))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            yield from sink.take()
    yield from sink.take()


def _stream_schema(parquet: pq.ParquetFile, dimension: int) -> pa.Schema:
    fields = [
        pa.field(
            column.name,
            _vector_type(column.type, dimension) if column.name in VECTORS else column.type,
            nullable=False,
        )
        for column in parquet.schema_arrow
    ]
    return pa.schema([*fields, pa.field("shard", pa.uint16(), nullable=False)])


def _vector_type(stored: pa.FixedSizeBinaryType, dimension: int) -> pa.FixedSizeListType:
    element = {2: pa.float16(), 4: pa.float32()}[stored.byte_width // dimension]
    return pa.list_(pa.field("element", element, nullable=False), dimension)


def _vectors(column: pa.FixedSizeBinaryArray, vector: pa.FixedSizeListType) -> pa.Array:
    """Return the bytes of a column as the vectors that they are."""
    dimension = vector.list_size
    values = pa.Array.from_buffers(
        vector.value_type,
        len(column) * dimension,
        [None, column.buffers()[1]],
        offset=column.offset * dimension,
    )
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
