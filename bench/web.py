"""`make bench`, last part: server time of the pages, and how much an update of the board sends.

The application without Airflow around it, on the embedded ClickHouse; medians of some requests.
Prints a table and writes `bench/web.json`.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from rich.console import Console
from rich.table import Table

from bench.server import running_server
from laion.clickhouse.client import Client
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.ledger.shard_state import Stage
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.vectors import clip_dimensions
from laion.web.app import Backend, create_app

RESULT = Path(__file__).parent / "web.json"
REQUESTS = 15
SIZES = (410, 5000)
CHANGED = 8
RUN_ID = "bench"
DIMENSION = 64
ROWS = 20_000


def main() -> None:
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="laion-bench-") as name,
        running_server(Path(name)) as server,
        server.client() as client,
    ):
        ensure_ledger(client)
        for size in SIZES:
            figures |= measure_board(client, size)
        figures |= measure_search(client)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table("", "")
    for label, value in figures.items():
        table.add_row(label, f"{value:,.1f}")
    Console().print(table)


def measure_board(client: Client, size: int) -> dict[str, float]:
    """Return milliseconds and bytes of the page, and of updates with some and no changes."""
    table = f"shards_{size}"
    ensure_base_table(client, table, TableIdentity("bench", clip_dimensions(DIMENSION)))
    client.command(
        f"INSERT INTO {table} (shard, id) SELECT number, number FROM numbers({size})",
        settings={"max_partitions_per_insert_block": size},
    )
    _publish(client, table, range(size))
    with _pages(client) as pages:
        query = {"table": table, "dataset": "bench"}
        cursor = pages.get("/board", params=query).json()["changes"]["cursor"]
        page_ms = _milliseconds(lambda: pages.get("/shards", params={"table": table}))
        # Past the overlap in which changes are sent twice.
        time.sleep(2.5)
        cursor = pages.get("/board/changes", params={**query, "since": cursor}).json()["cursor"]
        time.sleep(2.5)

        def update() -> Any:
            return pages.get("/board/changes", params={**query, "since": cursor + 2_000_000})

        idle_ms, idle_bytes = _milliseconds(update), len(update().content)
        _publish(client, table, range(CHANGED))
        update_ms, update_bytes = _milliseconds(update), len(update().content)
        sent = len(update().json()["cells"])
    assert sent == CHANGED, sent
    client.command(f"DROP TABLE {table} SYNC")
    return {
        f"board of {size}, page, ms": page_ms,
        f"board of {size}, update with {CHANGED} changes, ms": update_ms,
        f"board of {size}, update with {CHANGED} changes, bytes": update_bytes,
        f"board of {size}, update without changes, ms": idle_ms,
        f"board of {size}, update without changes, bytes": idle_bytes,
    }


def measure_search(client: Client) -> dict[str, float]:
    """Return what the page adds to a query's own time, in milliseconds."""
    ensure_base_table(client, "vectors", TableIdentity("bench", clip_dimensions(DIMENSION)))
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).tolist()
    columns = ["id", "image_embedding", "text_embedding"]
    client.insert("vectors", [[i, v, v] for i, v in enumerate(vectors)], column_names=columns)
    client.command("RENAME TABLE vectors TO vectors_search")
    with _pages(client) as pages:
        added: list[float] = []
        for row in range(REQUESTS):
            began = time.perf_counter()
            answer = pages.get(
                "/search/results", params={"table": "vectors", "like": row, "method": "exact"}
            )
            total_s = time.perf_counter() - began
            added.append(1000 * (total_s - answer.json()["runs"]["exact"]["seconds"]))
    return {"search, beside the query itself, ms": statistics.median(added)}


def _publish(client: Client, table: str, shards: range) -> None:
    """Write what the tasks of a published shard write."""
    origin = TaskOrigin("laion_ingest", RUN_ID, log_url="http://127.0.0.1/log")
    ledger = Ledger(client)
    ledger.record_run(origin, table=table, dataset="bench", source="", shards="", params={})
    start = ShardEvent(table, 0, "bench", origin, "plan", "planned", rows_expected=1_000_448)
    for stage in tuple(Stage):
        states = {"plan": ["planned"], "publish": ["done"]}.get(stage, ["started", "done"])
        for state in states:
            attempt = "" if stage == "plan" else "aaaa0001"
            event = replace(start, stage=stage, state=state, attempt=attempt, rows_loaded=1_000_448)
            ledger.append([replace(event, shard=shard) for shard in shards])


@contextmanager
def _pages(client: Client) -> Iterator[TestClient]:
    @contextmanager
    def lend() -> Iterator[Client]:
        yield client

    backend = Backend(
        clickhouse=lend,
        may_read=lambda: None,
        may_trigger=lambda: True,
        active_runs=lambda: {RUN_ID},
        source_urls=lambda dag_id, run_id, shard: {},
    )
    with TestClient(create_app(backend)) as pages:
        yield pages


def _milliseconds(ask: Callable[[], Any]) -> float:
    """Return the median time of an answer; the first is not counted."""
    ask().raise_for_status()
    times: list[float] = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        ask().raise_for_status()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


if __name__ == "__main__":
    main()
