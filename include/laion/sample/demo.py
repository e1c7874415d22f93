"""`make demo`, `make up` and `make down`: the product on one machine, on real parts."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from laion.clickhouse.ledger import Ledger, ShardOutcome
from laion.clickhouse.search_table.search import Target, search, search_tutorial
from laion.errors import ClickHouseError, DemoFailed, LaionError
from laion.sample.airflow_api import FINAL_STATES, AirflowApi
from laion.sample.dataset import SHARD_ROWS
from laion.sample.embeddings import model_embeddings
from laion.sample.lock import clear, locked
from laion.sample.model import ensure_sample_model
from laion.sample.stack import PROJECT, Stack, StackInfo, running_stack

DAG_ID = "laion_ingest"
DATASET = "sample"
RUN_STILL_S = 600
POLL_S = 1.0
HITS = 10
MIN_RIGHT = 8
STILL_RUNNING = "Some of it is still running; stop it with: make down"
QUESTIONS = (
    ("encode_text('a sleepy ginger cat')", "cat"),
    ("encode_image('lighthouse.jpg')", "lighthouse"),
)
FIRST_RUN = {"dataset": DATASET, "index_kind": "hnsw"}
SECOND_RUN = {"dataset": DATASET, "index_kind": "quantized", "shards": "", "deploy_udfs": False}

console = Console()


def run_demo(state: Path) -> None:
    """Run the main job from nothing to a search, show it, and stop what was started.

    Raises DemoFailed when the run is not green or the table is not what it should be.
    """
    began = time.monotonic()
    if Stack(state).stop():
        console.print("Stopped what was left of an earlier demo.")
    clear(state)
    _prepare_sample()
    console.print("Starting the embedded ClickHouse, the sample source and Airflow …")
    with running_stack(state) as (stack, info):
        console.print(f"Ready after {time.monotonic() - began:.0f} s. Airflow: {info.airflow_url}")
        api, client = stack.airflow_api(info), stack.clickhouse_client(info)
        outcomes = _run(stack, api, client, FIRST_RUN)
        _check(client, outcomes)
        _show_search(client)
        _run(stack, api, client, SECOND_RUN)
        console.print("The same words, asked of another kind of search table:\n")
        _show_search(client)
    console.print(f"\nEverything was stopped again. {time.monotonic() - began:.0f} s in all.")


def _run(stack: Stack, api: AirflowApi, client: Client, conf: dict[str, Any]) -> list[ShardOutcome]:
    """Run the DAG and show what became of each shard. Raises DemoFailed unless it is green."""
    run_id = api.trigger(DAG_ID, conf)
    console.print(f"Triggered {DAG_ID} with {json.dumps(conf)}: {run_id}\n")
    run_state = _watch(api, client, run_id)
    outcomes = _outcomes_so_far(client, run_id)
    if outcomes:
        console.print(_shard_table(outcomes))
    if run_state != "success":
        raise DemoFailed(_why_it_failed(api, stack, run_id, run_state))
    return outcomes


def _watch(api: AirflowApi, client: Client, run_id: str) -> str:
    """Show every shard's progress until the run ends, or stands still; return its state."""
    moved, before = time.monotonic(), None
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            run_state, outcomes = api.run_state(DAG_ID, run_id), _outcomes_so_far(client, run_id)
            live.update(_shard_table(outcomes))
            if (run_state, outcomes) != before:
                moved, before = time.monotonic(), (run_state, outcomes)
            if run_state in FINAL_STATES or time.monotonic() - moved > RUN_STILL_S:
                live.update("")
                return run_state
            time.sleep(POLL_S)


def _outcomes_so_far(client: Client, run_id: str) -> list[ShardOutcome]:
    try:
        return Ledger(client).run_outcomes(DAG_ID, run_id)
    except ClickHouseError:
        # Before the first task of the run, there is no ledger.
        return []


def _shard_table(outcomes: list[ShardOutcome]) -> Table:
    table = Table(title=f"Shards of {DATASET}", title_justify="left")
    for heading, justify in (
        ("shard", "right"),
        ("expected", "right"),
        ("loaded", "right"),
        ("state", "left"),
        ("seconds", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for outcome in outcomes:
        style = "green" if outcome.is_published else "red" if outcome.error_class else "yellow"
        table.add_row(
            f"{outcome.shard:05d}",
            f"{outcome.rows_expected:,}" if outcome.rows_expected else "",
            f"{outcome.rows_loaded:,}" if outcome.is_published else "",
            f"[{style}]{outcome.state}[/]",
            f"{outcome.seconds:.1f}" if outcome.seconds else "",
        )
    rows = sum(outcome.rows_loaded for outcome in outcomes)
    counts = Counter(outcome.state for outcome in outcomes)
    table.caption = f"{rows:,} rows in. " + ", ".join(f"{n} {state}" for state, n in counts.items())
    table.caption_justify = "left"
    return table


def _check(client: Client, outcomes: list[ShardOutcome]) -> None:
    """Raise DemoFailed unless the tables hold what the sample has, by their own count."""
    expected = dict(enumerate(SHARD_ROWS))
    query = f"SELECT shard, uniqExact(id) FROM {DATASET} GROUP BY shard"
    counted = {int(row[0]): int(row[1]) for row in client.query(query).result_rows}
    searchable = client.command(f"SELECT count() FROM {DATASET}_search")
    if counted != expected:
        raise DemoFailed(f"table {DATASET} has rows by shard {counted}, expected are {expected}")
    if searchable != sum(SHARD_ROWS):
        raise DemoFailed(f"table {DATASET}_search has {searchable} rows, not {sum(SHARD_ROWS)}")
    if not all(outcome.is_published for outcome in outcomes):
        raise DemoFailed("the ledger does not show every shard validated")
    console.print(
        f"[green]✓[/] {sum(counted.values()):,} rows in {len(counted)} shards, each once.\n"
    )


def _show_search(client: Client) -> None:
    """Search by words and by a picture, all of it in SQL, and by brute force to compare.

    Raises DemoFailed when what is found is not what was asked for.
    """
    (vector,) = client.query(
        f"SELECT text_embedding FROM {DATASET} WHERE caption != '' ORDER BY id LIMIT 1"
    ).result_rows[0]
    for target, subject in QUESTIONS:
        query = (
            f"SELECT caption, url, distance FROM {DATASET}_near(q = {target}, k = {HITS}, "
            "distinct = true)"
        )
        began = time.perf_counter()
        hits = client.query(query).result_rows
        seconds = time.perf_counter() - began
        console.print(query, markup=False, highlight=False, soft_wrap=True, style="cyan")
        console.print(_hits_table(f"{seconds * 1000:.0f} ms", hits))
        right = sum(f"/{subject}/" in url for _, url, _ in hits)
        if right < MIN_RIGHT:
            raise DemoFailed(f"{target}: only {right} of {len(hits)} hits show a {subject}")
    exact = search_tutorial(client, DATASET, vector)
    found = search(client, DATASET, Target.vector(vector))
    shared = len({hit.id for hit in exact.hits} & {hit.id for hit in found.hits})
    console.print(
        f"The tutorial's brute-force query: {exact.seconds * 1000:.0f} ms. The same by the search "
        f"table: {found.seconds * 1000:.0f} ms; {shared} of {len(exact.hits)} rows in both.\n"
    )


def _hits_table(title: str, hits: Sequence[Sequence[Any]]) -> Table:
    table = Table("distance", "shows", "caption", title=title, title_justify="left")
    for caption, url, distance in hits:
        shows = url.split("/")[-2]
        table.add_row(f"{distance:.3f}", shows, escape(" ".join(caption.split())[:80]))
    return table


def _why_it_failed(api: AirflowApi, stack: Stack, run_id: str, run_state: str) -> str:
    """Return each failed task's error and where its log is."""
    lines = [f"the run {run_id} ended as {run_state!r}."]
    for task in api.task_instances(DAG_ID, run_id):
        if task["state"] != "failed":
            continue
        log = stack.task_log(DAG_ID, run_id, task["task_id"], task["map_index"])
        lines.append(f"  {task['task_id']} {task['rendered_map_index'] or ''}")
        lines.append(f"    {_last_error(log) if log else 'it never started'}")
        lines.append(f"    log: {log or stack.state / 'logs'}")
    return "\n".join(lines)


def _last_error(log: Path) -> str:
    """Return the last error of a task's log, which is one JSON object per line."""
    error = "the log shows no error"
    for line in log.read_text().splitlines():
        event = json.loads(line)
        for detail in event.get("error_detail", [])[:1]:
            error = f"{detail['exc_type']}: {detail['exc_value']}"
    return error


def start_stack(state: Path) -> None:
    """Start the stack and leave it running; running already, just say where."""
    stack = Stack(state)
    running = stack.running()
    info = running or _start_whole(stack)
    console.print(
        f"{'Already running' if running else 'Running'}.\n"
        f"  Airflow     {info.airflow_url}   user {info.airflow_user}, "
        f"password {info.airflow_password}\n"
        f"  ClickHouse  http://127.0.0.1:{info.clickhouse_port}   user default, "
        f"password {info.clickhouse_password}\n"
        f"  Sample      {info.source_url}\n"
        f"  Logs        {_short(stack.state / 'logs')}\n\n"
        f"Trigger {DAG_ID} in Airflow: Dags → {DAG_ID} → Trigger, and leave the form as it is.\n"
        "Stop everything with: make down",
        highlight=False,
        soft_wrap=True,
    )


def _start_whole(stack: Stack) -> StackInfo:
    if stack.stop():
        console.print("Only parts of it were running. Stopped them, to start all of it again.")
    _prepare_sample()
    return stack.start()


def stop_stack(state: Path) -> None:
    """Stop what `start_stack` started, or what is left of a demo."""
    stopped = Stack(state).stop()
    console.print(f"{'Stopped what' if stopped else 'Nothing'} was running in {state}.")


def _prepare_sample() -> None:
    console.print("Preparing the sample (its texts are embedded once) …")
    model_embeddings(ensure_sample_model())


def _short(path: Path) -> Path:
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def main() -> int:
    """Run one of the three commands and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m laion.sample.demo", description=__doc__)
    parser.add_argument("command", choices=["run", "up", "down"])
    parser.add_argument(
        "--state",
        type=Path,
        required=True,
        nargs="+",
        help="directory for everything; several for `down`",
    )
    args = parser.parse_args()
    command = {"run": run_demo, "up": start_stack, "down": stop_stack}[args.command]
    code = 0
    try:
        for state in args.state:
            try:
                with locked(state):
                    command(state)
            except LaionError as error:  # The others are stopped nevertheless.
                print(f"\n{type(error).__name__}: {error}", file=sys.stderr)
                code = 1
    except KeyboardInterrupt:
        left = any(Stack(state).has_processes for state in args.state)
        print(f"\nInterrupted. {STILL_RUNNING if left else 'Nothing is running.'}", file=sys.stderr)
        return 130
    return code


def _stop_orderly_on_signals() -> None:
    """Have what was started stopped before this process ends, whichever signal ends it."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(signum, signal.default_int_handler)


if __name__ == "__main__":
    _stop_orderly_on_signals()
    sys.exit(main())
