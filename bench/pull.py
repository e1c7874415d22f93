"""`python -m bench.pull`: a shard into its staging table, sent by a worker and read from S3.

The S3 is moto's server on the same machine: its CPU is not counted, and as it is slower than a
real one, wall time is not told.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from bench.measure import Cost, peak_rss_mb, reset_peak_rss, run_step
from bench.server import running_server
from laion.s3 import S3Options
from laion.sample.processes import free_port, start
from laion.sample.waiting import wait_until
from laion.storage.objects import Objects

URI = "s3://bench/ours/0.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        show(measure(Path(name), args.rows, args.rounds), args.rows)


def measure(work: Path, rows: int, rounds: int) -> dict[str, list[tuple[Cost, float]]]:
    """Run both in turn; return the cost of each run and the server's peak memory in MB."""
    shard, parquet = work / "shard", work / "0.parquet"
    run_step("write_inputs", str(shard), str(rows))
    run_step("convert", str(shard), str(parquet))
    port = free_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
    }
    moto = str(Path(sys.executable).parent / "moto_server")
    s3 = start("s3", [moto, "-H", "127.0.0.1", "-p", str(port)], work / "s3.log", dict(os.environ))
    try:
        wait_until(s3, lambda: "Running on" in s3.log.read_text())
        requests.put(f"http://127.0.0.1:{port}/bench", timeout=10)
        Objects(S3Options()).upload(parquet, URI)
        steps = {
            "sent by a worker": ("load", str(shard), str(parquet)),
            "read from S3": ("pull", str(shard), str(parquet), URI),
        }
        found: dict[str, list[tuple[Cost, float]]] = {name: [] for name in steps}
        with running_server(work) as server:
            os.environ["BENCH_PORT"] = str(server.port)
            for _ in range(rounds):
                for name, step in steps.items():
                    reset_peak_rss(server.pid)
                    cost = run_step(*step, server_pid=server.pid)
                    found[name].append((cost, peak_rss_mb(server.pid)))
    finally:
        s3.stop()
    return found


def show(found: dict[str, list[tuple[Cost, float]]], rows: int) -> None:
    table = Table(title=f"{rows:,} rows of 2 × 512 float16", title_justify="left")
    headings = ("", "worker CPU s / 1M", "server CPU s / 1M", "worker peak MB", "server peak MB")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for name, runs in found.items():
        table.add_row(
            name,
            f"{statistics.median(cost.cpu_s for cost, _ in runs) * 1e6 / rows:.1f}",
            f"{statistics.median(cost.server_cpu_s for cost, _ in runs) * 1e6 / rows:.1f}",
            f"{max(cost.rss_mb for cost, _ in runs):.0f}",
            f"{max(peak for _, peak in runs):.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
