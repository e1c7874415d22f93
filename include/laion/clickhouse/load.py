"""From the Parquet file of a shard into its staging table, streamed over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, staging_table
from laion.clickhouse.statements import statement
from laion.convert import BATCH_ROWS
from laion.errors import StagingGone
from laion.shards import VECTORS, ShardParquet, StagedShard

log = logging.getLogger(__name__)

INSERT_SETTINGS = {
    # An asynchronous insert would be acknowledged before the rows can be counted.
    "async_insert": 0,
    "max_insert_threads": 1,
    # One part of at most 256 MiB at a time bounds the server's memory.
    "min_insert_block_size_rows": 1_048_449,
    "min_insert_block_size_bytes": 256 << 20,
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
    with pq.ParquetFile(path) as parquet, typed_errors(f"load {spec.label} into {staging}"):
        client.command(f"DROP TABLE IF EXISTS {quote_identifier(staging)} SYNC")
        client.command(statement("create_staging", staging=staging, table=spec.table))
        columns = _stream_schema(parquet, shard.dimension).names
        summary = client.raw_insert(
            quote_identifier(staging),
            column_names=columns,
            insert_block=stream_shard(parquet, spec.shard, shard.dimension),
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
) -> Generator[bytes, None, None]:
    """Yield an Arrow IPC stream of the file's rows with vectors as float32, batch by batch."""
    schema = _stream_schema(parquet, dimension)
    sink = _Chunks()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in parquet.iter_batches(BATCH_ROWS):
            columns = [
                _vectors(batch, name, dimension) if name in VECTORS else batch[name]
                for name in batch.schema.names
            ]
            columns.append(pa.array(np.full(len(batch), number, np.uint16)))
            writer.write_batch(pa.record_batch(columns, schema=schema))
            yield sink.take()
    yield sink.take()


def _stream_schema(parquet: pq.ParquetFile, dimension: int) -> pa.Schema:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), dimension)
    fields = [
        pa.field(f.name, vector if f.name in VECTORS else f.type, nullable=False)
        for f in parquet.schema_arrow
    ]
    return pa.schema([*fields, pa.field("shard", pa.uint16(), nullable=False)])


def _vectors(batch: pa.RecordBatch, name: str, dimension: int) -> pa.FixedSizeListArray:
    column = batch[name]
    field = batch.schema.field(name)
    dtype = np.dtype(f"<f{column.type.byte_width // dimension}")
    values = np.frombuffer(
        column.buffers()[1],
        dtype,
        count=len(column) * dimension,
        offset=column.offset * column.type.byte_width,
    )
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.astype(np.float32, copy=False)),
        type=pa.list_(element, dimension),
        mask=None if not field.nullable else column.is_null(),
    )


class _Chunks:
    """A file that Arrow writes into and the HTTP client reads out of, chunk by chunk."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: pa.Buffer) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing to do: chunks are taken, not flushed."""

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
