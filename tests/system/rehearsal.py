"""`make rehearse`: all 410 shards of a miniature LAION-400M through the real stack, with trouble.

Every shard has 200 rows, but the six odd ones; the layout is LAION's. Of the downloads 5 % fail at
random, by a seed, and three shards are broken. The run ends, the three are mended and the failed
tasks cleared; then two shards are damaged in ClickHouse and `laion_backfill` loads them again. At
the end the independent checker compares every value. The report goes to `.state/rehearsal/`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import requests

from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from tests.receivers import WebHook
from tests.system.faults import checker
from tests.system.postgres_stack import PARTS, PostgresStack, running_postgres_stack

DAG_ID = "laion_ingest"
TABLE = "rehearsal"
ROWS = 200
ODD_ROWS = {8: 128, 107: 37, 220: 88, 319: 68, 408: 201, 409: 103}
DIMENSION = 16
FAILING_SHARE = 0.05
SEED = 20
BROKEN = {3: "truncated", 9: "missing", 17: "a row short"}
DAMAGED = (5, 6)
MIN_SHARDS = 18
RUN_TIMEOUT_S = 3000
SAMPLE_EVERY_S = 5
AT_ONCE = 8
ROOM_FOR_SMALL_TASKS = {
    "AIRFLOW__CORE__PARALLELISM": str(2 * AT_ONCE),
    "LAION_MAX_SHARDS_IN_FLIGHT": str(4 * AT_ONCE),
    "LAION_MAX_PARALLEL_DOWNLOADS": str(AT_ONCE),
    "LAION_MAX_PARALLEL_CONVERTS": str(AT_ONCE),
    "LAION_MAX_PARALLEL_LOADS": str(AT_ONCE),
}
"""A task takes seconds, as long as a pass of the scheduler over a large run."""

PROFILE = """
title = "LAION-400M in miniature"
dimension = {dimension}
vectors = ["image_embedding", "text_embedding"]
shards = "0-{last}"
rows_per_shard = {rows}
rows_of_odd_shards = {{ {odd} }}

[[layouts]]
image_embedding = "img_emb/img_emb_{{shard}}.npy"
text_embedding = "text_emb/text_emb_{{shard}}.npy"
metadata = "metadata/metadata_{{shard}}.parquet"
"""


class Source:
    """A web server that lets a share of all downloads fail, each shard at most once in a row."""

    def __init__(self, directory: Path) -> None:
        self.failures: Counter[str] = Counter()
        self._random = random.Random(SEED)
        self._lock = threading.Lock()
        source = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if source.fails():
                    self.send_error(500)
                else:
                    super().do_GET()

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(directory))
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def fails(self) -> bool:
        """Decide about one download."""
        with self._lock:
            failing = self._random.random() < FAILING_SHARE
            self.failures["failed" if failing else "served"] += 1
            return failing

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        yield
        self.server.shutdown()
        self.server.server_close()
        thread.join()


@dataclass
class Gauge:
    """Samples, while a run goes on, what a user at the UI would feel, and what is spent."""

    stack: PostgresStack
    api: Any
    samples: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def ask(self, run_id: str) -> None:
        """Time one request of each kind, in ms."""
        for name, path in {
            "API: the run": f"/api/v2/dags/{DAG_ID}/dagRuns/{run_id}",
            "Airflow's grid": f"/ui/grid/runs/{DAG_ID}?limit=10",
            "Airflow's grid, task states": f"/ui/grid/ti_summaries/{DAG_ID}?run_ids={run_id}",
            "board, whole": f"/laion/board?table={TABLE}",
            "board, changes": f"/laion/board/changes?table={TABLE}&since={_just_now()}",
        }.items():
            began = time.perf_counter()
            try:
                answer = self.api._session.get(self.api.url + path, timeout=30)
            except requests.RequestException as error:
                self.errors[f"{name}: {type(error).__name__}"] += 1
                continue
            if answer.ok:
                ms = 1000 * (time.perf_counter() - began)
                self.samples.setdefault(name, []).append(ms)
            else:
                self.errors[f"{name}: HTTP {answer.status_code}"] += 1

    def lines(self) -> list[str]:
        lines = [
            f"| {name} | {statistics.median(ms):,.0f} | "
            f"{sorted(ms)[int(0.95 * (len(ms) - 1))]:,.0f} | {len(ms)} |"
            for name, ms in self.samples.items()
        ]
        head = ["| request | median ms | 95 % ms | times |", "|---|---|---|---|"]
        return [*head, *lines, *(f"\nErrors: {text} ({n}×)" for text, n in self.errors.items())]


def _just_now() -> int:
    """Return the cursor of a page that has asked a moment ago."""
    return int(1e6 * (time.time() - SAMPLE_EVERY_S))


def cpu_s(stack: PostgresStack) -> dict[str, float]:
    """Return the CPU seconds of every part so far, with what its processes have started."""
    spent = {}
    for name in (*PARTS, "postgres", "clickhouse", "source"):
        process = psutil.Process(stack._children[name].pid)
        total = 0.0
        for one in (process, *process.children(recursive=True)):
            try:
                times = one.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        spent[name] = total
    return spent


def rows_of(shard: int) -> int:
    return ODD_ROWS.get(shard, ROWS)


def write_source(directory: Path, shards: int) -> None:
    for shard in range(shards):
        write_shard(directory, shard, rows_of(shard), made_up_embeddings(DIMENSION))


def break_shards(directory: Path) -> dict[Path, bytes]:
    """Break three shards; return what the files held."""
    kept = {}
    for shard, how in BROKEN.items():
        path = directory / "img_emb" / f"img_emb_{shard}.npy"
        if how == "a row short":
            path = directory / "metadata" / f"metadata_{shard}.parquet"
        kept[path] = path.read_bytes()
        if how == "truncated":
            path.write_bytes(kept[path][:-50])
        elif how == "missing":
            path.unlink()
        else:
            write_shard(directory / "short", shard, rows_of(shard) - 1, made_up_embeddings(16))
            shutil.copy(directory / "short" / "metadata" / path.name, path)
    return kept


def rehearse(state: Path, shards: int) -> str:
    """Go through the whole of it; return the report. Fails when anything is not as it must be."""
    shutil.rmtree(state, ignore_errors=True)
    files = state / "source"
    write_source(files, shards)
    kept = break_shards(files)
    profiles = state / "profiles"
    profiles.mkdir()
    odd = ", ".join(f"{n} = {rows}" for n, rows in ODD_ROWS.items() if n < shards)
    text = PROFILE.format(dimension=DIMENSION, last=shards - 1, rows=ROWS, odd=odd)
    (profiles / "mini400m.toml").write_text(text)
    source = Source(files)
    with WebHook() as hook, source.serving():
        channel = {"config": {"path": hook.url, "tag": "all"}}
        env = {
            "AIRFLOW_CONN_LAION_ALERTS": json.dumps({"conn_type": "apprise", "extra": channel}),
            "LAION_PROFILES_DIR": str(profiles),
            "LAION_RETRY_DELAY_S": "2",
            **ROOM_FOR_SMALL_TASKS,
        }
        with running_postgres_stack(state / "stack", env) as (stack, info):
            client, api = stack.clickhouse_client(info), stack.airflow_api(info)
            gauge = Gauge(stack, api)
            conf = {
                "dataset": "mini400m",
                "table": TABLE,
                "source": source.url,
                "shards": "all",
                "index_kind": "hnsw",
                "index_quantization": "f32",
                "recall_target": 0.5,
                "deploy_udfs": False,
            }
            before, idle_bytes = cpu_s(stack), stack.database_bytes()
            database = checker.ClickHouse(
                f"http://127.0.0.1:{info.clickhouse_port}", info.clickhouse_password, "default"
            )
            began = time.monotonic()
            with checker.Reader(database, TABLE, every_s=1) as reader:
                run_id = api.trigger(DAG_ID, conf)
                first = wait(gauge, run_id)
                first_s = time.monotonic() - began
                first_cpu = cpu_s(stack)
                for path, content in kept.items():
                    path.write_bytes(content)
                api.log_in()
                body = {"dag_run_id": run_id, "reset_dag_runs": True, "only_failed": True}
                api.clear(DAG_ID, body)
                repaired = wait(gauge, run_id)
                repaired_s = time.monotonic() - began - first_s
            for shard in DAMAGED:
                client.command(f"ALTER TABLE {TABLE} DROP PARTITION {shard}")
            api.log_in()
            backfill = {"dataset": "mini400m", "table": TABLE, "dry_run": False}
            backfilled = api.wait_for_run(
                "laion_backfill", api.trigger("laion_backfill", backfill), RUN_TIMEOUT_S
            )
            wall_s = time.monotonic() - began
            held = checker.held_shards(database, TABLE)
            wrong = reader.judge(held.items())
            for shard in range(shards):
                wrong += checker.compare_shard(database, TABLE, files, shard)
            wrong += checker.judge_ledger(database, TABLE)
            wrong += [f"left: {table}" for table in checker.left_tables(database)]
            wrong += [f"left: {file}" for file in checker.left_files(stack.state / "staging")]
            spent = {part: first_cpu[part] - before[part] for part in first_cpu}
            states = {"first run": first, "repaired": repaired, "backfill": backfilled}
            lines = [
                f"# Rehearsal: {shards} shards",
                "",
                f"- whole: {wall_s / 60:.1f} min; the run {first_s / 60:.1f} min, the repair "
                f"{repaired_s / 60:.1f} min, the backfill "
                f"{(wall_s - first_s - repaired_s) / 60:.1f} min",
                f"- states: {states}",
                f"- per shard, of the first run: {first_s / shards:.2f} s wall, "
                f"{sum(spent[p] for p in (*PARTS, 'postgres')) / shards:.2f} CPU-s of Airflow and "
                f"PostgreSQL (tasks included), {spent['clickhouse'] / shards:.2f} of ClickHouse",
                f"- CPU-s by part: { {part: round(s) for part, s in spent.items()} }",
                f"- metadata database: {idle_bytes / 1e6:.1f} MB before, "
                f"{stack.database_bytes() / 1e6:.1f} MB after",
                f"- downloads: {dict(source.failures)}",
                f"- alerts: {len(hook.messages)}",
                *(f"  - {message['title']}" for message in hook.messages),
                f"- {reader.reads} reads of the table during the run",
                *task_lines(api, run_id),
                "",
                *gauge.lines(),
                "",
                f"Wrong: {wrong or 'nothing'}",
            ]
            client.close()
    report = "\n".join(lines)
    (state / "report.md").write_text(report + "\n")
    must = [first == "failed", repaired == "success", backfilled == "success"]
    must += [not wrong, wall_s <= 2400, len(hook.messages) <= 6]
    if not all(must):
        print(report)
        sys.exit("The rehearsal did not go as it must.")
    return report


def wait(gauge: Gauge, run_id: str) -> str:
    """Wait for a run, asking what a user at the UI asks; return its state."""
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while True:
        time.sleep(SAMPLE_EVERY_S)
        gauge.ask(run_id)
        try:
            state = gauge.api.run_state(DAG_ID, run_id)
        except requests.RequestException:
            continue
        if state in ("success", "failed") or time.monotonic() > deadline:
            return str(state)


def task_lines(api: Any, run_id: str) -> list[str]:
    """Return how many instances each task had, and how long they took and waited."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for task in api.task_instances(DAG_ID, run_id):
        if task["start_date"] and task["end_date"]:
            queued, begun, ended = (
                _epoch(task[key] or task["start_date"])
                for key in ("queued_when", "start_date", "end_date")
            )
            spans.setdefault(task["task_id"], []).append((begun - queued, ended - begun))
    head = ["", "| task | instances | median s queued | median s run |", "|---|---|---|---|"]
    return head + [
        f"| {name} | {len(found)} | {statistics.median(q for q, _ in found):.2f} | "
        f"{statistics.median(r for _, r in found):.2f} |"
        for name, found in spans.items()
    ]


def _epoch(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".state/rehearsal"))
    parser.add_argument("--shards", type=int, default=410, help=f"at least {MIN_SHARDS}")
    arguments = parser.parse_args()
    if arguments.shards < MIN_SHARDS:
        parser.error(f"--shards: at least {MIN_SHARDS}")
    print(rehearse(arguments.state.absolute(), arguments.shards))


if __name__ == "__main__":
    main()
