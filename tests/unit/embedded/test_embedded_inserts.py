"""INSERTs of unmodified clickhouse-connect into the embedded ClickHouse."""

from __future__ import annotations

import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from pyarrow.csv import WriteOptions, write_csv

from laion.embedded.compression import choose_compressor


def test_rows_frames_and_arrow_are_inserted(client, table, vectors):
    client.insert(table, [[5000, [1.0, 2.0]]], column_names=["id", "emb"])
    client.insert_df(table, pd.DataFrame({"id": [5001], "emb": [[3.0]]}))
    summary = client.insert_arrow(table, vectors)

    assert summary.written_rows == 1000
    assert client.query("SELECT emb FROM t WHERE id >= 5000 ORDER BY id").result_rows == [
        ([1.0, 2.0],),
        ([3.0],),
    ]
    assert client.command("SELECT count() FROM t") == 1002


def arrow_stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return sink.getvalue()


def csv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    write_csv(table, sink, WriteOptions(include_header=False))
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "generator"])
@pytest.mark.parametrize(("fmt", "encode"), [("ArrowStream", arrow_stream), ("Parquet", parquet)])
def test_raw_data_are_streamed_in(client, table, vectors, embedded, fmt, encode, as_file):
    data = encode(vectors)
    chunks = io.BytesIO(data) if as_file else (data[i : i + 999] for i in range(0, len(data), 999))

    client.raw_insert(table, ["id", "emb"], chunks, settings={"log_comment": "x"}, fmt=fmt)

    assert client.command("SELECT count(), sum(id), sum(length(emb)) FROM t") == [
        "1000",
        "499500",
        "4000",
    ]
    assert list((embedded.path / "spool").iterdir()) == []


def test_data_may_be_cut_anywhere_on_their_way(client):
    client.command(
        "CREATE TABLE wide (" + ", ".join(f"c{n} UInt8" for n in range(60)) + ") ORDER BY ()"
    )
    columns = {f"c{n}": pa.array([n], pa.uint8()) for n in range(60)}
    data = arrow_stream(pa.concat_tables([pa.table(columns)] * 3000))
    pieces = (data[i : i + 70_001] for i in range(0, len(data), 70_001))

    client.raw_insert("wide", list(columns), pieces, fmt="ArrowStream")

    assert client.command("SELECT count(), sum(c59) FROM wide") == ["3000", str(59 * 3000)]


@pytest.mark.parametrize(("fmt", "encode"), [("ArrowStream", arrow_stream), ("Parquet", parquet)])
def test_an_insert_may_have_settings_and_fewer_columns(client, table, vectors, fmt, encode):
    client.raw_insert("t (id) SETTINGS max_threads = 2", None, encode(vectors), fmt=fmt)

    assert client.command("SELECT count(), sum(empty(emb)) FROM t") == ["1000", "1000"]


@pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", "deflate"])
def test_raw_data_may_be_compressed(client, table, vectors, method):
    name, compressor = choose_compressor(f"br, {method};q=1.0")
    data = compressor.compress(arrow_stream(vectors)) + compressor.flush()

    client.raw_insert(table, ["id", "emb"], data, fmt="ArrowStream", compression=method)

    assert name == method
    assert client.command("SELECT count() FROM t") == 1000


def test_broken_compressed_data_are_refused(client, table):
    with pytest.raises(DatabaseError) as caught:
        client.raw_insert(table, None, b"\x1f\x8b\x08nonsense", fmt="TSV", compression="gzip")

    assert caught.value.name == "ZLIB_INFLATE_FAILED"


@pytest.mark.parametrize("rows", [1, 1_000_000])
@pytest.mark.parametrize("fmt", ["ArrowStream", "Parquet", "CSV"])
def test_data_that_cannot_be_written_are_an_error(client, table, fmt, rows):
    client.command("ALTER TABLE t ADD CONSTRAINT small CHECK id < 0")
    encode = {"ArrowStream": arrow_stream, "Parquet": parquet, "CSV": csv}[fmt]
    data = encode(pa.table({"id": pa.array(range(rows), pa.uint64())}))

    for chunks in (data, (data[i : i + 99_999] for i in range(0, len(data), 99_999))):
        with pytest.raises(DatabaseError) as caught:
            client.raw_insert(table, ["id"], chunks, fmt=fmt)
        assert caught.value.name == "VIOLATED_CONSTRAINT"
        assert client.command("SELECT count() FROM t") == 0


def test_a_failed_insert_leaves_the_session_usable(client, table, vectors):
    for fmt, data in [
        ("JSONEachRow", b'{"id": "x"}'),
        ("ArrowStream", b"x" * 99),
        ("Parquet", b"PAR1"),
    ]:
        with pytest.raises(DatabaseError) as caught:
            client.raw_insert(table, ["id"], data, fmt=fmt)
        assert caught.value.code is not None
        assert client.command("SELECT count() FROM t") == 0
