"""A dataset whose vectors are of different dimensions, all the way to searches by each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger, read_identity
from laion.clickhouse.search_table.search import Target, search
from laion.errors import BadRequest, TableMismatch, WrongDimension
from laion.shards import Alignment, ShardFiles
from laion.vectors import Vector
from tests.shard_files import DIMENSION, ROWS, path_of, unit_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import build_search, publish, stage_shard

TABLE = "apart"
VECTORS = [
    Vector("image_embedding", DIMENSION),
    Vector("text_embedding", 8),
    Vector("sound", 24, dtype="float32"),
]
IDENTITY = TableIdentity("little", {vector.name: vector.length for vector in VECTORS})


@pytest.fixture
def files(shard_directory: Path) -> ShardFiles:
    """A shard with texts of 8 dimensions and a third vector of 24."""
    little = write_little_shard(shard_directory)
    np.save(path_of(shard_directory, "text_embedding"), unit_vectors(ROWS, 8))
    sounds = shard_directory / "sounds.npy"
    np.save(sounds, unit_vectors(ROWS, 24))
    spec = replace(little.spec, table=TABLE, vectors=VECTORS)
    return replace(little, spec=spec, paths={**little.paths, "sound": str(sounds)})


@pytest.fixture
def loaded(client: Client, files: ShardFiles, tmp_path: Path) -> Client:
    ensure_ledger(client)
    ensure_base_table(client, TABLE, IDENTITY)
    staged = stage_shard(client, files, tmp_path)
    assert staged.parquet.alignment is Alignment.UNKNOWN
    publish(client, staged)
    return client


def test_each_arrives_with_its_own_dimension(loaded: Client) -> None:
    rows = loaded.query(f"SELECT text_embedding, sound FROM {TABLE} ORDER BY id").result_rows

    np.testing.assert_array_equal(np.float32([row[0] for row in rows]), unit_vectors(ROWS, 8))
    np.testing.assert_array_equal(np.float32([row[1] for row in rows]), unit_vectors(ROWS, 24))
    assert read_identity(loaded, TABLE) == IDENTITY


def test_each_can_be_searched_by(loaded: Client) -> None:
    plan = build_search(loaded, table=TABLE)

    assert plan.vectors == IDENTITY.vectors
    for vector in VECTORS[1:]:
        target = Target.vector(unit_vectors(ROWS, vector.length)[7].tolist())
        found = search(loaded, TABLE, target, column=vector.name, limit=1, exact=True)
        assert [hit.id for hit in found.hits] == [7]
    with pytest.raises(BadRequest, match="take one of image_embedding, text_embedding, sound"):
        search(loaded, TABLE, target, column="smell")


def test_a_run_with_other_vectors_is_refused(loaded: Client) -> None:
    fewer = TableIdentity("little", dict(list(IDENTITY.vectors.items())[:2]))

    with pytest.raises(TableMismatch, match="sound of 24 dimensions"):
        ensure_base_table(loaded, TABLE, fewer)


def test_the_one_that_is_not_as_it_should_be_is_named(
    client: Client, files: ShardFiles, tmp_path: Path
) -> None:
    ensure_ledger(client)
    ensure_base_table(client, TABLE, IDENTITY)
    wrong = [*VECTORS[:2], replace(VECTORS[2], dimension=25)]

    with pytest.raises(WrongDimension, match="sound has 24 dimensions, 25 are expected"):
        stage_shard(client, replace(files, spec=replace(files.spec, vectors=wrong)), tmp_path)
