"""`python -m bench.growth`: what a shard costs as the table grows to 1, 4 and 16 shards.

16 shards of 50,000 rows, each converted, loaded, validated and published in turn into one table by
one process; CPU seconds of the process and of the server. Prints a table and writes
`bench/growth.json`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import cpu_seconds, peak_rss_mb
from bench.server import running_server
from laion.clickhouse.client import Client
from laion.clickhouse.derived import drop_derived
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.clickhouse.shards.load import load_shard
from laion.clickhouse.shards.publish import publish_shard
from laion.convert import convert_shard
from laion.datasets import load_profile
from laion.download import download_shard
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.shards import ShardSpec
from laion.sources import locate_sources
from laion.vectors import clip_dimensions, clip_vectors

ROWS = 50_000
SHARDS = 16
DIMENSION = 512
RESULT = Path(__file__).parent / "growth.json"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        work = Path(name)
        with running_server(work) as server, server.client() as client:
            ensure_ledger(client)
            # The first shard of a process also pays for imports and the server's first merges.
            measure(client, server.pid, work, "warm_up", 1)
            costs = measure(client, server.pid, work, "growing", SHARDS)
            server_rss_mb = peak_rss_mb(server.pid)
    show(costs, server_rss_mb)


def measure(client: Client, server_pid: int, work: Path, table: str, shards: int) -> list[float]:
    """Return the CPU seconds of each shard, of this process and of the server."""
    ensure_base_table(client, table, TableIdentity("clip_retrieval", clip_dimensions(DIMENSION)))
    costs = []
    for shard in range(shards):
        write_shard(work / "in", shard, ROWS, made_up_embeddings(DIMENSION))
        before = time.process_time() + cpu_seconds(server_pid)
        load(client, work, table, shard)
        costs.append(time.process_time() + cpu_seconds(server_pid) - before)
    return costs


def load(client: Client, work: Path, table: str, shard: int) -> None:
    """Take a shard all the way into the base table, as the tasks of a run do."""
    profile, attempt = load_profile("clip_retrieval"), f"{shard:08x}"
    source = locate_sources(profile, (work / "in").as_uri(), [shard])[0]
    urls = {role: [url] for role, url in source.urls(shard).items()}
    spec = ShardSpec("clip_retrieval", table, shard, urls, ROWS, list(clip_vectors(DIMENSION)))
    target = work / "shard.parquet"
    staged = load_shard(client, convert_shard(download_shard(spec, attempt, work), target))
    ledger = Ledger(client)
    contents = publish_shard(client, ledger, staged)
    origin = TaskOrigin("bench", table)
    ledger.append(
        [
            ShardEvent(
                table,
                shard,
                spec.dataset,
                origin,
                "publish",
                "done",
                attempt,
                rows_loaded=contents.rows,
                hash=contents.hash,
            )
        ]
    )
    drop_derived(client, staged.staging_table)


def show(costs: list[float], server_rss_mb: float) -> None:
    console = Console()
    table = Table("shards in the table", "CPU s per shard", title=f"Shards of {ROWS:,} rows")
    # The last four before each size, where there are as many: one shard alone says little.
    at = {size: statistics.median(costs[max(0, size - 4) : size]) for size in (1, 4, SHARDS)}
    for size, cost in at.items():
        table.add_row(str(size), f"{cost:.2f}")
    console.print(table)
    ratio = at[SHARDS] / at[4]
    console.print(f"a shard at {SHARDS} / at the beginning: {ratio:.2f}")
    console.print(f"peak memory of the server: {server_rss_mb:,.0f} MB")
    RESULT.write_text(
        json.dumps(
            {
                "rows_per_shard": ROWS,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "cpu_s_by_shard": [round(cost, 2) for cost in costs],
                "at_16_against_the_first_4": round(ratio, 3),
                "server_peak_rss_mb": round(server_rss_mb),
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
