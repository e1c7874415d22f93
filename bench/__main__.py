"""`make bench`: convert and load one shard by the tutorial's method and by ours, side by side.

200,000 rows, or 1,000,448 with `FULL=1`. Prints a table and writes `bench/result.json`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Cost, peak_rss_mb, run_step
from bench.server import running_server

ROWS = 1_000_448 if os.environ.get("FULL") else 200_000
RESULT = Path(__file__).parent / "result.json"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="laion-bench-") as name:
        work = Path(name)
        with running_server(work) as server:
            os.environ["BENCH_PORT"] = str(server.port)
            costs = measure(work, server.pid)
            server_rss_mb = peak_rss_mb(server.pid)
        floor_cpu_s = engine_floor(work)
    show(costs, floor_cpu_s, server_rss_mb)


def measure(work: Path, server_pid: int) -> dict[str, Cost]:
    """Run every step once, ours before the tutorial's so that its size does not disturb."""
    inputs, parquet, csv = str(work / "in"), str(work / "0.parquet"), str(work / "0.csv")
    run_step("write_inputs", inputs, str(ROWS))
    return {
        "bare copy": run_step("copy_inputs", inputs, str(work / "copy")),
        "convert": run_step("convert", inputs, parquet),
        "load": run_step("load", inputs, parquet, server_pid=server_pid),
        "validate and publish": run_step("publish", inputs, parquet, server_pid=server_pid),
        "tutorial: convert": run_step("tutorial_convert", inputs, csv),
        "tutorial: load": run_step("tutorial_load", csv, server_pid=server_pid),
    }


def engine_floor(work: Path) -> float:
    """Return the CPU seconds of the engine's own copy of as many rows into MergeTree."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.steps", "floor", str(ROWS), str(work / "floor")],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_s"])


def show(costs: dict[str, Cost], floor_cpu_s: float, server_rss_mb: float) -> None:
    table = Table(title=f"One shard of {ROWS:,} rows, 2 × 512 float16", title_justify="left")
    for heading in ("step", "wall s", "CPU s", "server CPU s", "peak MB"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for step, cost in costs.items():
        figures = (cost.wall_s, cost.cpu_s, cost.server_cpu_s, cost.rss_mb)
        table.add_row(step, *(f"{figure:,.1f}" for figure in figures))
    table.add_row("engine's floor", "", "", f"{floor_cpu_s:,.1f}", "")
    ours, theirs = (
        sum(costs[step].cpu_s + costs[step].server_cpu_s for step in steps)
        for steps in (("convert", "load"), ("tutorial: convert", "tutorial: load"))
    )
    load = costs["load"].cpu_s + costs["load"].server_cpu_s
    ratios = {
        "tutorial's CPU / ours (convert + load)": theirs / ours,
        "our load's CPU / the engine's floor": load / floor_cpu_s,
    }
    console = Console()
    console.print(table)
    for what, ratio in ratios.items():
        console.print(f"{what}: {ratio:.1f}")
    console.print(f"peak memory of the server: {server_rss_mb:,.0f} MB")
    RESULT.write_text(
        json.dumps(
            {
                "rows": ROWS,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "steps": {step: cost.to_json() for step, cost in costs.items()},
                "engine_floor_cpu_s": round(floor_cpu_s, 3),
                "server_peak_rss_mb": round(server_rss_mb),
                "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
