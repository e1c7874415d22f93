"""A dataset whose one vector lies inside its Parquet files, all the way into the base table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.convert import convert_shard, inspect_shard
from laion.download import download_shard
from laion.errors import BadMetadata, WrongDimension
from laion.shards import ShardFiles, ShardSpec
from laion.vectors import Vector
from tests.shard_files import ATTEMPT, DIMENSION, unit_vectors
from tests.unit.clickhouse.shard_steps import build_search, publish, stage_shard

ROWS = 9_000
VECTORS = unit_vectors(ROWS)
VECTOR = Vector("image_embedding", DIMENSION, column="vector")
IDENTITY = TableIdentity("inside", {"image_embedding": DIMENSION})
SPEC = ShardSpec(
    dataset="inside",
    table="inside",
    shard=3,
    urls={"metadata": []},
    vectors=[VECTOR],
    columns={"caption": "TEXT"},
)


def write_file(directory: Path, **columns: object) -> ShardFiles:
    path = directory / "part_3.parquet"
    table = {
        "TEXT": [f"caption {row}" for row in range(ROWS)],
        "vector": pa.array(list(VECTORS), pa.list_(pa.float32())),
        **columns,
    }
    pq.write_table(pa.table(table), path, row_group_size=5000)
    return download_shard(
        replace(SPEC, urls={"metadata": [path.as_uri()]}), ATTEMPT, directory / "attempt"
    )


def test_rows_and_vectors_arrive_in_a_table_without_the_other_vector(
    client: Client, tmp_path: Path
) -> None:
    ensure_ledger(client)
    ensure_base_table(client, "inside", IDENTITY)

    staged = stage_shard(client, write_file(tmp_path), tmp_path)
    publish(client, staged)

    names = [row[0] for row in client.query("DESCRIBE inside").result_rows]
    assert "image_embedding" in names
    assert "text_embedding" not in names
    rows = client.query("SELECT id, caption, image_embedding FROM inside ORDER BY id").result_rows
    assert len(rows) == ROWS
    assert [rows[0][0], rows[-1][0]] == [300_000_000, 300_000_000 + ROWS - 1]
    assert rows[4567][1] == "caption 4567"
    np.testing.assert_array_equal(np.array([row[2] for row in rows], np.float32), VECTORS)


def test_its_search_table_has_an_index_on_that_one_vector(client: Client, tmp_path: Path) -> None:
    ensure_ledger(client)
    ensure_base_table(client, "inside", IDENTITY)
    publish(client, stage_shard(client, write_file(tmp_path), tmp_path))

    plan = build_search(client, table="inside")

    assert plan.vectors == {"image_embedding": DIMENSION}
    assert client.command("SELECT count() FROM inside_search") == ROWS


def test_a_file_without_the_column_is_found_before_any_work(tmp_path: Path) -> None:
    files = write_file(tmp_path)
    wrong = replace(files.spec, vectors=[replace(VECTOR, column="embedding")])

    with pytest.raises(BadMetadata, match=r"shard 00003: metadata: has no column 'embedding'"):
        inspect_shard(replace(files, spec=wrong))


def test_vectors_of_another_length_fail_the_shard(tmp_path: Path) -> None:
    files = write_file(tmp_path)
    wrong = replace(files.spec, vectors=[replace(VECTOR, dimension=DIMENSION + 1)])

    with pytest.raises(WrongDimension, match=rf"{DIMENSION + 1} are expected"):
        convert_shard(replace(files, spec=wrong), tmp_path / "3.parquet")
    assert not list(tmp_path.glob("3.parquet*"))
