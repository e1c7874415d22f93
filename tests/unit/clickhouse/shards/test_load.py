from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import column_types, ensure_base_table, ensure_ledger
from laion.clickhouse.shards.load import BATCH_ROWS, load_shard, round_to_bfloat16, stream_shard
from laion.convert import convert_shard
from laion.errors import StagingGone, TableMismatch
from laion.shards import ShardParquet
from laion.vectors import clip_dimensions
from tests.shard_files import (
    DIMENSION,
    ROWS,
    VECTORS,
    corrupt_column_name,
    read_vectors,
    unit_vectors,
    write_arrays,
    write_little_shard,
)
from tests.unit.clickhouse.shard_steps import IDENTITY, TABLE, make_tables

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
        chunks = list(stream_shard(file, 0, clip_dimensions(DIMENSION)))

    batches = list(pa.ipc.open_stream(b"".join(chunks)))
    assert [len(batch) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 1]
    table = pa.Table.from_batches(batches)
    for role in VECTORS:
        flat = table[role].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(
            flat.reshape(-1, DIMENSION), read_vectors(shard_directory, role)
        )


def test_a_missing_file_tells_what_to_clear(client: Client, parquet: ShardParquet) -> None:
    make_tables(client)
    Path(parquet.path).unlink()

    with pytest.raises(StagingGone, match=r"shard 00007: .*clear this task"):
        load_shard(client, parquet)


def test_a_file_with_a_damaged_column_name_tells_what_to_clear(
    client: Client, parquet: ShardParquet
) -> None:
    make_tables(client)
    corrupt_column_name(Path(parquet.path))

    with pytest.raises(StagingGone, match=r"shard 00007: .*damaged .*clear this task"):
        load_shard(client, parquet)


def test_a_missing_base_table_is_typed(client: Client, parquet: ShardParquet) -> None:
    with pytest.raises(TableMismatch, match="there is no table 'little'"):
        load_shard(client, parquet)


class TestBFloat16:
    def test_every_float16_rounds_as_ieee_754_says(self) -> None:
        values = np.arange(65_536, dtype=np.uint16).view(np.float16)

        rounded = round_to_bfloat16(values)

        with np.errstate(invalid="ignore"):
            expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(rounded, expected)

    def test_any_float32_rounds_as_ieee_754_says(self) -> None:
        bits = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32)
        ties = np.arange(0x3F800000, 0x3F900000, 0x8000, dtype=np.uint32)
        values = np.concatenate([bits, ties]).view(np.float32)

        rounded = round_to_bfloat16(values)

        with np.errstate(over="ignore", invalid="ignore"):
            expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(rounded, expected)

    @pytest.mark.parametrize("dtype", ["<f2", "<f4"])
    def test_a_table_of_that_type_holds_the_nearest_values(
        self, client: Client, shard_directory: Path, tmp_path: Path, dtype: str
    ) -> None:
        vectors = unit_vectors(ROWS).astype(dtype)
        captions = pa.table({"caption": [f"row {row}" for row in range(ROWS)]})
        files = write_arrays(shard_directory, vectors, vectors[::-1], captions, SHARD)
        ensure_ledger(client)
        ensure_base_table(client, TABLE, IDENTITY, element_type="BFloat16")

        load_shard(client, convert_shard(files, tmp_path / "7.parquet"))

        rows = client.query(
            f"SELECT image_embedding, text_embedding FROM {STAGING} ORDER BY id"
        ).result_rows
        nearest = vectors.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal([row[0] for row in rows], nearest)
        np.testing.assert_array_equal([row[1] for row in rows], nearest[::-1])

    def test_a_table_that_exists_keeps_its_type(self, client: Client) -> None:
        make_tables(client)

        ensure_base_table(client, TABLE, IDENTITY, element_type="BFloat16")

        assert column_types(client, TABLE)["image_embedding"] == "Array(Float32)"
