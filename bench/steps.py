"""The steps that are measured, each run in a process of its own: `python -m bench.steps NAME …`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

ATTEMPT = "0" * 8


def write_inputs(directory: str, rows: str) -> None:
    """Write one shard of so many rows as the sample does, with 512-d vectors that no model made."""
    from laion.sample.dataset import write_shard
    from laion.sample.embeddings import made_up_embeddings

    write_shard(Path(directory), 0, int(rows), made_up_embeddings(512))


def copy_inputs(directory: str, target: str) -> None:
    """The bare copy of the input bytes: what reading and writing them costs at least."""
    shutil.copytree(directory, target)


def tutorial_convert(directory: str, target: str) -> None:
    """The tutorial's method: one data frame with lists in it, written as CSV."""
    import numpy as np
    import pandas as pd

    base = Path(directory)
    metadata = pd.read_parquet(base / "metadata" / "metadata_0.parquet")
    frame = pd.concat(
        [
            metadata[["url", "caption", "NSFW", "similarity"]],
            pd.DataFrame(
                {
                    name: [row.tolist() for row in np.load(base / folder / f"{folder}_0.npy")]
                    for name, folder in (
                        ("image_embedding", "img_emb"),
                        ("text_embedding", "text_emb"),
                    )
                }
            ),
        ],
        axis=1,
    )
    frame["caption"] = frame["caption"].fillna("").map(lambda text: text.replace("'", " "))
    frame.fillna({"NSFW": "", "similarity": 0}).to_csv(target, header=False)


def tutorial_load(path: str) -> None:
    """The tutorial's import of that CSV."""
    with _client() as client, Path(path).open("rb") as file:
        client.command(
            "CREATE TABLE tutorial (id Int64, url String, caption String, NSFW String, "
            "similarity Float32, image_embedding Array(Float32), text_embedding Array(Float32)) "
            "ENGINE = MergeTree ORDER BY id"
        )
        client.raw_insert("tutorial", insert_block=file, fmt="CSV")


def convert(directory: str, target: str) -> None:
    """Ours, with every check."""
    from laion.convert import convert_shard
    from laion.download import download_shard

    convert_shard(download_shard(_spec(directory), ATTEMPT, Path(target).parent), Path(target))


def load(directory: str, path: str, attempt: str = ATTEMPT) -> None:
    """Ours: Parquet into the staging table of an attempt."""
    from laion.clickhouse.schema import TableIdentity, ensure_base_table
    from laion.clickhouse.shards.load import load_shard
    from laion.vectors import clip_dimensions

    with _client() as client:
        ensure_base_table(client, "ours", TableIdentity("clip_retrieval", clip_dimensions(512)))
        load_shard(client, _parquet(directory, path, attempt))


def pull(directory: str, path: str, uri: str) -> None:
    """Ours: the same, read from S3 by the server."""
    from dataclasses import replace

    from laion.clickhouse.schema import TableIdentity, ensure_base_table
    from laion.clickhouse.shards.pull import S3Access, pull_shard
    from laion.s3 import S3Options
    from laion.vectors import clip_dimensions

    with _client() as client:
        ensure_base_table(client, "ours", TableIdentity("clip_retrieval", clip_dimensions(512)))
        shard = replace(_parquet(directory, path, ATTEMPT), path=uri)
        pull_shard(client, shard, S3Access("s3://bench", S3Options()))


def publish(directory: str, path: str) -> None:
    """Ours: count, hash, swap."""
    from laion.clickhouse.ledger import Ledger
    from laion.clickhouse.schema import ensure_ledger
    from laion.clickhouse.shards.publish import publish_shard
    from laion.shards import StagedShard

    with _client() as client:
        ensure_ledger(client)
        parquet = _parquet(directory, path, ATTEMPT)
        publish_shard(client, Ledger(client), StagedShard(parquet, f"ours_staging_0_{ATTEMPT}", 0))


def floor(rows: str, directory: str) -> None:
    """The engine's own: the same rows from a Memory table into MergeTree, in one process.

    Prints the CPU seconds of that statement alone.
    """
    import time

    from chdb import _chdb

    connection = _chdb.connect(directory)
    columns = (
        "id Int64, url String, caption String, NSFW String, similarity Float32, "
        "image_embedding Array(Float32) CODEC(NONE), text_embedding Array(Float32) CODEC(NONE)"
    )
    # Not random, but as little compressible.
    vector = "arrayMap(i -> toFloat32(sin(number * 7919 + i)), range(512))"
    connection.query(f"CREATE TABLE source ({columns}) ENGINE = Memory")
    connection.query(
        "INSERT INTO source SELECT number, toString(number), toString(number), '', 0, "
        f"{vector}, {vector} FROM numbers({int(rows)})"
    )
    connection.query(f"CREATE TABLE target ({columns}) ENGINE = MergeTree ORDER BY id")
    before = time.process_time()
    connection.query("INSERT INTO target SELECT * FROM source")
    print(json.dumps({"cpu_s": time.process_time() - before}))
    connection.close()


def _spec(directory: str) -> Any:
    from laion.datasets import load_profile
    from laion.shards import ShardSpec
    from laion.sources import locate_sources
    from laion.vectors import clip_vectors

    source = locate_sources(load_profile("clip_retrieval"), Path(directory).as_uri(), [0])[0]
    urls = {role: [url] for role, url in source.urls(0).items()}
    return ShardSpec("clip_retrieval", "ours", 0, urls, vectors=list(clip_vectors(512)))


def _parquet(directory: str, path: str, attempt: str) -> Any:
    import pyarrow.parquet as pq

    from laion.shards import ShardParquet

    rows = pq.ParquetFile(path).metadata.num_rows
    return ShardParquet(
        spec=_spec(directory),
        attempt=attempt,
        path=path,
        rows=rows,
        size=Path(path).stat().st_size,
        rows_of={},
        bad_vectors=0,
        norms_off=0,
        alignment="unknown",
    )


def _client() -> Any:
    import clickhouse_connect

    return clickhouse_connect.get_client(
        host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), autogenerate_session_id=False
    )


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
