"""Whole runs without scheduler or UI: `airflow dags test` on an empty Airflow home."""

from __future__ import annotations

from pathlib import Path

from clickhouse_connect.driver.client import Client

from tests.dags.conftest import Run
from tests.shard_files import write_little_shard


def test_a_run_loads_every_shard(run_dag: Run, client: Client, tmp_path: Path) -> None:
    for shard, rows in enumerate((30, 20, 10)):
        write_little_shard(tmp_path, shard, rows)

    done = run_dag({"shards": "0-2", "source": tmp_path.as_uri()})

    assert done.returncode == 0, done.stdout + done.stderr
    assert "state=success" in done.stdout
    query = "SELECT shard, count(), uniqExact(id) FROM clip_retrieval GROUP BY shard ORDER BY shard"
    assert client.query(query).result_rows == [(0, 30, 30), (1, 20, 20), (2, 10, 10)]


def test_a_run_with_a_missing_shard_fails_and_keeps_the_good_ones(
    run_dag: Run, client: Client, tmp_path: Path
) -> None:
    for shard, rows in enumerate((30, 20)):
        write_little_shard(tmp_path, shard, rows)

    done = run_dag({"shards": "0-2", "source": tmp_path.as_uri(), "table": "partly"})

    assert "state=failed" in done.stdout
    assert "2 of 3 planned shards" in done.stdout + done.stderr
    assert client.query(
        "SELECT shard, count() FROM partly GROUP BY shard ORDER BY shard"
    ).result_rows == [
        (0, 30),
        (1, 20),
    ]
