"""`python -m bench.downloads`: the files of one shard by curl, by wget and by ours, in one run.

All from one server on this machine into one directory, in turn, several times; the median counts.
`--into` names the directory: on tmpfs it is the programs that are measured; on a disk ours waits
until the files are on it, which the others do not, so `sync` is counted for them as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

SIZES = {
    "img_emb_0.npy": 1_024_458_880,
    "text_emb_0.npy": 1_024_458_880,
    "metadata_0.parquet": 155_069_440,
}
MAGIC = {".npy": b"\x93NUMPY", ".parquet": b"PAR1"}
RESULT = Path(__file__).parent / "downloads.json"


@dataclass(frozen=True)
class Cost:
    """What one program took for all files: seconds, and its peak resident memory in MB."""

    wall_s: float
    cpu_s: float
    rss_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.downloads", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the files' sizes")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="laion-bench-", dir="/dev/shm") as source,
        tempfile.TemporaryDirectory(prefix="laion-bench-", dir=args.into) as into,
    ):
        write_files(Path(source), args.scale)
        command = [sys.executable, "-m", "bench.downloads_server", source]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                costs = measure(server.stdout.readline().strip(), Path(into), args.rounds)
            finally:
                server.terminate()
    show(costs, int(sum(SIZES.values()) * args.scale), args.into)


def write_files(directory: Path, scale: float) -> None:
    """Write files of random bytes that begin as those of a shard do."""
    block = os.urandom(1 << 24)
    for name, size in SIZES.items():
        left = int(size * scale)
        with (directory / name).open("wb") as file:
            left -= file.write(MAGIC[Path(name).suffix])
            while left > 0:
                left -= file.write(block[:left])


def measure(url: str, into: Path, rounds: int) -> dict[str, Cost]:
    """Run every program in turn, `rounds` times; return the medians."""
    urls = [f"{url}/{name}" for name in SIZES]
    programs: dict[str, Sequence[str]] = {
        "curl": ["curl", "-sSf", "--remote-name-all", *urls],
        "curl, in parallel": ["curl", "-sSf", "-Z", "--remote-name-all", *urls],
        "wget": ["wget", "-q", *urls],
        "ours": [sys.executable, "-m", "bench.downloads_ours", "plain", url],
        "ours, with sha256": [sys.executable, "-m", "bench.downloads_ours", "sha256", url],
    }
    runs: dict[str, list[Cost]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, command in programs.items():
            runs[name].append(run(command, into, sync=not name.startswith("ours")))
    return {name: median(costs) for name, costs in runs.items()}


def run(command: Sequence[str], into: Path, *, sync: bool) -> Cost:
    """Run a program in `into` and leave that empty. Raises CalledProcessError."""
    began = time.perf_counter()
    child = subprocess.Popen(
        command,
        cwd=into,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        # Parallel curl draws its progress even when told to be silent.
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    if sync:
        for path in into.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    wall_s = time.perf_counter() - began
    for path in into.iterdir():
        path.unlink()
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.cpu_s for cost in costs),
        max(cost.rss_mb for cost in costs),
    )


def show(costs: dict[str, Cost], size: int, into: Path) -> None:
    table = Table(title=f"{size / 1e6:,.0f} MB in three files, into {into}", title_justify="left")
    fastest = min(cost.wall_s for name, cost in costs.items() if not name.startswith("ours"))
    for heading in ("program", "wall s", "× fastest other", "MB/s", "CPU s", "peak MB"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for name, cost in costs.items():
        table.add_row(
            name,
            f"{cost.wall_s:.2f}",
            f"{cost.wall_s / fastest:.2f}",
            f"{size / cost.wall_s / 1e6:,.0f}",
            f"{cost.cpu_s:.2f}",
            f"{cost.rss_mb:.0f}",
        )
    Console().print(table)
    record = {
        "bytes": size,
        "into": str(into),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "programs": {name: asdict(cost) for name, cost in costs.items()},
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
