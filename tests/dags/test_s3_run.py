"""A whole run whose source and staging area lie on S3, here moto's server."""

from __future__ import annotations

import json
from pathlib import Path

from clickhouse_connect.driver.client import Client

from tests.dags.conftest import Run
from tests.s3 import S3Server
from tests.shard_files import truncate, write_little_shard

BROKEN = 3


def test_a_run_needs_no_directory_that_workers_share_and_shows_no_secret(
    run_dag: Run, client: Client, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket, s3 = s3_server.make_bucket(), s3_server.client()
    for shard, rows in enumerate((30, 20, 10, 5)):
        files = write_little_shard(tmp_path / "source", shard, rows)
        if shard == BROKEN:
            truncate(Path(files.paths["text_embedding"]))
        for path in files.paths.values():
            key = Path(path).relative_to(tmp_path)
            s3.put_object(Bucket=bucket, Key=str(key), Body=Path(path).read_bytes())

    done = run_dag(
        {
            "shards": "0-3",
            "source": f"s3://{bucket}/source",
            "keep_parquet": True,
            "tolerate_failed_shards": 1,
        },
        AIRFLOW_CONN_LAION_S3=json.dumps(s3_server.airflow_connection),
        LAION_STAGING_URI=f"s3://{bucket}/staging",
        LAION_SCRATCH_DIR=str(tmp_path / "scratch"),
        LAION_MAX_SHARDS_IN_FLIGHT="2",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "state=success" in done.stdout
    query = "SELECT shard, count(), uniqExact(id) FROM clip_retrieval GROUP BY shard ORDER BY shard"
    assert client.query(query).result_rows == [(0, 30, 30), (1, 20, 20), (2, 10, 10)]
    kept = s3.list_objects_v2(Bucket=bucket, Prefix="staging/")["Contents"]
    assert [found["Key"] for found in kept] == [
        f"staging/parquet/clip_retrieval/{shard}.parquet" for shard in range(3)
    ]
    assert list((tmp_path / "scratch").iterdir()) == []
    told = done.stdout + done.stderr + _all_text(client)
    assert s3_server.secret not in told
    assert f"s3://{bucket}/source" in told


def _all_text(client: Client) -> str:
    """What the ledger and ClickHouse's query log hold."""
    client.command("SYSTEM FLUSH LOGS")
    tables = ("shard_ledger", "ingest_runs", "system.query_log")
    return "".join(str(client.query(f"SELECT * FROM {table}").result_rows) for table in tables)
