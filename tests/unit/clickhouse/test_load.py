from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.load import BATCH_ROWS, load_shard, stream_shard
from laion.convert import convert_shard
from laion.errors import ClickHouseError, StagingGone
from laion.shards import VECTORS, ShardParquet
from tests.shard_files import (
    DIMENSION,
    ROWS,
    read_vectors,
    unit_vectors,
    write_arrays,
    write_little_shard,
)
from tests.unit.clickhouse.shard_steps import TABLE, make_tables

SHARD = 7
STAGING = f"{TABLE}_staging_{SHARD}_aaaa0001"


@pytest.fixture
def parquet(shard_directory: Path, tmp_path: Path) -> ShardParquet:
    return convert_shard(write_little_shard(shard_directory, SHARD), tmp_path / "7.parquet")


def test_the_rows_arrive_in_the_staging_table_of_the_attempt(
    client: Client, parquet: ShardParquet
) -> None:
    make_tables(client)

    staged = load_shard(client, parquet)

    assert (staged.staging_table, staged.rows_written) == (STAGING, ROWS)
    assert client.command(f"SELECT count() FROM {STAGING}") == ROWS


def test_the_base_table_stays_empty(client: Client, parquet: ShardParquet) -> None:
    make_tables(client)

    load_shard(client, parquet)

    assert client.command(f"SELECT count() FROM {TABLE}") == 0


def test_loading_again_starts_anew(client: Client, parquet: ShardParquet) -> None:
    make_tables(client)
    load_shard(client, parquet)
    client.command(f"INSERT INTO {STAGING} (id) VALUES (1)")

    load_shard(client, parquet, try_number=2)

    assert client.command(f"SELECT count() FROM {STAGING}") == ROWS


def test_rows_are_those_of_one_shard(client: Client, parquet: ShardParquet) -> None:
    make_tables(client)

    load_shard(client, parquet)

    rows = client.query(f"SELECT DISTINCT shard, intDiv(id, 100000000) FROM {STAGING}").result_rows
    assert rows == [(SHARD, SHARD)]


def test_odd_captions_arrive_byte_for_byte(
    client: Client, shard_directory: Path, tmp_path: Path
) -> None:
    captions = [b"\"q\" 's'", b"back\\slash \\N", b"a\nb\r\n\tc", b"nul\0", b"caf\xe9 \xff", b""]
    raw = pa.array(captions)
    text = pa.Array.from_buffers(pa.string(), len(captions), raw.buffers())
    vectors = unit_vectors(len(captions))
    files = write_arrays(shard_directory, vectors, vectors, pa.table({"caption": text}), SHARD)
    make_tables(client)

    load_shard(client, convert_shard(files, tmp_path / "7.parquet"))

    found = client.query(f"SELECT hex(caption) FROM {STAGING} ORDER BY id").result_rows
    assert [bytes.fromhex(row[0]) for row in found] == captions


@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_vectors_arrive_as_float32(
    client: Client, shard_directory: Path, tmp_path: Path, dtype: str
) -> None:
    vectors = unit_vectors(ROWS).astype(dtype)
    captions = pa.table({"caption": ["a"] * ROWS})
    files = write_arrays(shard_directory, vectors, vectors, captions, SHARD)
    make_tables(client)

    load_shard(client, convert_shard(files, tmp_path / "7.parquet"))

    found = client.query(f"SELECT text_embedding FROM {STAGING} ORDER BY id").result_rows
    np.testing.assert_array_equal([row[0] for row in found], vectors.astype(np.float32))


def test_the_stream_is_made_of_small_batches(shard_directory: Path, tmp_path: Path) -> None:
    files = write_little_shard(shard_directory, rows=2 * BATCH_ROWS + 1)
    parquet = convert_shard(files, tmp_path / "0.parquet")

    with pq.ParquetFile(parquet.path) as file:
        chunks = list(stream_shard(file, 0, DIMENSION))

    batches = list(pa.ipc.open_stream(b"".join(chunks)))
    assert [len(batch) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 1]
    table = pa.Table.from_batches(batches)
    for role in VECTORS:
        flat = table[role].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(
            flat.reshape(-1, DIMENSION), read_vectors(shard_directory, role)
        )


def test_a_missing_file_tells_which_task_to_clear(client: Client, parquet: ShardParquet) -> None:
    make_tables(client)
    Path(parquet.path).unlink()

    with pytest.raises(StagingGone, match=r"shard 00007: .*clear .*download_shard"):
        load_shard(client, parquet)


def test_a_missing_base_table_is_typed_with_the_shard(
    client: Client, parquet: ShardParquet
) -> None:
    with pytest.raises(ClickHouseError, match="load shard 00007"):
        load_shard(client, parquet)
