"""`make bench`: convert and load one shard by the tutorial's method and by ours, side by side.

200,000 rows, or 1,000,448 with `FULL=1`. Our steps and the engine's floor are run three times and
their medians told; the tutorial's method, which takes minutes, once. Then four loads at once, for
the server's memory. Prints tables and writes `bench/result.json`. The files lie in a temporary
directory: `TMPDIR=/dev/shm` keeps a slow disk out of the figures. `--ours` leaves out the
tutorial's method, which needs 40 GB of memory for a full shard.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Cost, peak_rss_mb, reset_peak_rss, run_step
from bench.server import running_server
from laion.clickhouse.client import Client

ROWS = 1_000_448 if os.environ.get("FULL") else 200_000
RUNS = 3
PARALLEL_LOADS = 4
RESULT = Path(__file__).parent / "result.json"
OURS = ("convert", "load")
THEIRS = ("tutorial: convert", "tutorial: load")


@dataclass(frozen=True)
class Measured:
    """What the steps took, what they left on disk in MB, and the server's peak memory in MB."""

    costs: dict[str, Cost]
    disk_mb: dict[str, float]
    server_mb: float
    server_mb_of_parallel_loads: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--ours", action="store_true", help="without the tutorial's method")
    with_tutorial = not parser.parse_args().ours
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        work = Path(name)
        with running_server(work) as server, server.client() as client:
            os.environ["BENCH_PORT"] = str(server.port)
            measured = measure(work, server.pid, client, with_tutorial)
        floor_cpu_s = statistics.median(engine_floor(work / f"floor{run}") for run in range(RUNS))
    show(measured, floor_cpu_s)


def measure(work: Path, server_pid: int, client: Client, with_tutorial: bool) -> Measured:
    """Run the steps, ours before the tutorial's so that its size does not disturb."""
    inputs, parquet, csv = work / "in", work / "0.parquet", work / "0.csv"
    run_step("write_inputs", inputs, ROWS)
    runs: list[dict[str, Cost]] = []
    for _ in range(RUNS):
        runs.append(
            {
                "bare copy": run_step("copy_inputs", inputs, work / "copy"),
                "convert": run_step("convert", inputs, parquet),
                "load": run_step("load", inputs, parquet, server_pid=server_pid),
                "validate and publish": run_step("publish", inputs, parquet, server_pid=server_pid),
            }
        )
        shutil.rmtree(work / "copy")
    costs = {step: median_cost([run[step] for run in runs]) for step in runs[0]}
    server_mb = peak_rss_mb(server_pid)
    reset_peak_rss(server_pid)
    load_in_parallel(inputs, parquet)
    parallel_mb = peak_rss_mb(server_pid)
    disk_mb = {
        "source files": sum(path.stat().st_size for path in inputs.rglob("*.*")) / 1e6,
        "our Parquet file": parquet.stat().st_size / 1e6,
        "our table": table_mb(client, "ours"),
    }
    if with_tutorial:
        costs["tutorial: convert"] = run_step("tutorial_convert", inputs, csv)
        costs["tutorial: load"] = run_step("tutorial_load", csv, server_pid=server_pid)
        disk_mb["the tutorial's CSV"] = csv.stat().st_size / 1e6
        disk_mb["the tutorial's table"] = table_mb(client, "tutorial")
    return Measured(costs, disk_mb, server_mb, parallel_mb)


def median_cost(costs: list[Cost]) -> Cost:
    return Cost(
        *(statistics.median(getattr(cost, field.name) for cost in costs) for field in fields(Cost))
    )


def load_in_parallel(inputs: Path, parquet: Path) -> None:
    """Load the same file into as many staging tables at once. Raises CalledProcessError."""
    command = [sys.executable, "-m", "bench.steps", "load", str(inputs), str(parquet)]
    loads = [subprocess.Popen([*command, f"{number:08x}"]) for number in range(PARALLEL_LOADS)]
    for load in loads:
        if load.wait():
            raise subprocess.CalledProcessError(load.returncode, command)


def table_mb(client: Client, table: str) -> float:
    query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = {table:String}"
    return float(client.query(query, parameters={"table": table}).result_rows[0][0]) / 1e6


def engine_floor(directory: Path) -> float:
    """Return the CPU seconds of the engine's own copy of as many rows into MergeTree."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.steps", "floor", str(ROWS), str(directory)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_s"])


def show(measured: Measured, floor_cpu_s: float) -> None:
    costs, console = measured.costs, Console()
    table = Table(title=f"One shard of {ROWS:,} rows, 2 × 512 float16", title_justify="left")
    for heading in ("step", "wall s", "CPU s", "server CPU s", "peak MB"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step, cost in costs.items():
        figures = (cost.wall_s, cost.cpu_s, cost.server_cpu_s, cost.rss_mb)
        table.add_row(step, *(f"{figure:,.1f}" for figure in figures))
    table.add_row("engine's floor", "", "", f"{floor_cpu_s:,.1f}", "")
    console.print(table)
    for what, megabytes in measured.disk_mb.items():
        console.print(f"{what}: {megabytes:,.0f} MB")

    def cpu_s(*steps: str) -> float:
        return sum(costs[step].cpu_s + costs[step].server_cpu_s for step in steps)

    ratios = {"our load's CPU / the engine's floor": cpu_s("load") / floor_cpu_s}
    if THEIRS[0] in costs:
        ratios["tutorial's CPU / ours (convert + load)"] = cpu_s(*THEIRS) / cpu_s(*OURS)
    for what, ratio in ratios.items():
        console.print(f"{what}: {ratio:.1f}")
    console.print(f"convert + load, wall: {sum(costs[step].wall_s for step in OURS):.1f} s")
    console.print(
        f"peak memory of the server: {measured.server_mb:,.0f} MB, "
        f"{measured.server_mb_of_parallel_loads:,.0f} MB with {PARALLEL_LOADS} loads at once"
    )
    RESULT.write_text(
        json.dumps(
            {
                "rows": ROWS,
                "runs": RUNS,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "directory": tempfile.gettempdir(),
                "steps": {step: cost.to_json() for step, cost in costs.items()},
                "disk_mb": {what: round(size) for what, size in measured.disk_mb.items()},
                "engine_floor_cpu_s": round(floor_cpu_s, 3),
                "server_peak_mb": round(measured.server_mb),
                "server_peak_mb_of_parallel_loads": round(measured.server_mb_of_parallel_loads),
                "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
