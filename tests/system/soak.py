"""`make soak`: loads, clears, backfills, index builds, searches and the board at once.

What may not grow is sampled all the time: memory, file handles and processes of ClickHouse, parts
of its tables, memory and handles of a process that serves searches and the board, and task
processes. The last quarter is compared with the second, when every cache has been filled. The
samples and a chart go to `.state/soak/`.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import psutil

from laion.clickhouse.search_table.search import Target, search
from laion.sample.dataset import write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.web.board import TableChoice, read_board
from tests.embedded_server import EmbeddedServer
from tests.system.faults import checker
from tests.system.faults.proxy import FaultProxy
from tests.system.faults.test_index import build
from tests.system.faults.world import DIMENSION, STAGES, TABLE, Run, World

matplotlib.use("Agg")

MINUTES = 20
SHARDS = 6
ROWS = 2000
MENDED = "mended"
SAMPLE_EVERY_S = 2
ASK_EVERY_S = 0.2
ALLOWED_GROWTH = {
    "ClickHouse, MB": 1.15,
    "ClickHouse, handles": 1.1,
    "ClickHouse, processes": 1.0,
    "parts": 1.3,
    "searches, MB": 1.1,
    "searches, handles": 1.1,
    "task processes": 1.5,
}
"""How many times the second quarter's median the last one's may be."""


@dataclass
class Soak:
    """What goes on at once, until `ended`, and how often it was done."""

    world: World
    mended: Path
    ended: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def load(self) -> None:
        """Load all shards from files that change, clear one of them, build the search table."""
        turn = self.done["loads of all shards"]
        self.world.write_shards(*[ROWS] * SHARDS, seed=turn)
        run = self.world.start_run(f"0-{SHARDS - 1}", build_index=True)
        self.expect_all(run)
        assert run.clear(turn % SHARDS, STAGES).state == "success"
        assert run.confirm().state == "success"
        assert build(run) == "success"
        self.done["loads of all shards"] += 1

    def mend(self) -> None:
        """Lose a shard of another table, and load what backfill finds."""
        turn = self.done["backfills"]
        with self.world.client() as client:
            client.command(f"ALTER TABLE {MENDED} DROP PARTITION {turn % SHARDS}")
        shards = [repair.shard for repair in self.world.backfill_plan(MENDED)]
        assert shards == [turn % SHARDS]
        self.load_mended(str(shards[0]))
        self.done["backfills"] += 1

    def load_mended(self, shards: str) -> None:
        run = self.world.start_run(shards, table=MENDED, source=self.mended.as_uri())
        self.expect_all(run)
        assert run.confirm().state == "success"

    def expect_all(self, run: Run) -> None:
        assert {outcome.state for outcome in run.load_shards()} == {"success"}

    def ask(self) -> None:
        """Search, and read the board."""
        with self.world.client() as client:
            while not self.ended.wait(ASK_EVERY_S):
                for table in (TABLE, MENDED):
                    read_board(client, TableChoice(table, "clip_retrieval"), active_runs=[])
                if client.command(f"EXISTS TABLE {TABLE}_search"):
                    search(client, TABLE, Target.vector([1 / DIMENSION**0.5] * DIMENSION))
                    self.done["searches"] += 1

    def keep_doing(self, work: Callable[[], None]) -> None:
        """Do something again and again, until the end or an error, which ends everything."""
        try:
            while not self.ended.is_set():
                work()
        except Exception as error:
            self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")
            self.ended.set()

    def forget_ended_tasks(self) -> None:
        """Give up the handle that this process holds of each task process."""
        for worker in [one for one in self.world.workers if not one.process.is_alive()]:
            self.world.workers.remove(worker)

    def sample(self) -> dict[str, float]:
        server, here = psutil.Process(self.world.server.pid), psutil.Process()
        ((parts,),) = self.world.direct.rows("SELECT count() FROM system.parts WHERE active")
        below = len(server.children(recursive=True))
        return {
            "ClickHouse, MB": server.memory_info().rss / 1e6,
            "ClickHouse, handles": server.num_fds(),
            "ClickHouse, processes": 1 + below,
            "parts": int(parts),
            "searches, MB": here.memory_info().rss / 1e6,
            "searches, handles": here.num_fds(),
            # Beside these, this process has started ClickHouse and the one that forks.
            "task processes": len(here.children(recursive=True)) - below - 2,
        }


def soak(state: Path, minutes: float) -> list[str]:
    """Go on for so long; return what is wrong at the end."""
    state.mkdir(parents=True, exist_ok=True)
    samples: list[dict[str, float]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(EmbeddedServer(directory / "server"))
        source, mended = directory / "source", directory / "mended"
        world = World(
            directory=directory,
            source=source,
            server=server,
            database="default",
            clickhouse=stack.enter_context(FaultProxy(server.port)),
            mirror=stack.enter_context(FaultProxy(server.port)),
            source_url=source.as_uri(),
        )
        soak = Soak(world, mended)
        for shard in range(SHARDS):
            write_shard(mended, shard, ROWS, made_up_embeddings(DIMENSION))
        soak.load()
        soak.load_mended(f"0-{SHARDS - 1}")
        threads = [
            threading.Thread(target=soak.keep_doing, args=(work,))
            for work in (soak.load, soak.mend, soak.ask)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes and not soak.ended.wait(SAMPLE_EVERY_S):
            samples.append({"minute": (time.monotonic() - began) / 60, **soak.sample()})
            soak.forget_ended_tasks()
        soak.ended.set()
        for thread in threads:
            thread.join()
        wrong = soak.failures + judge_tables(world, mended) + judge_growth(samples)
    print(f"{minutes:g} minutes: {dict(soak.done)}")
    with (state / "samples.csv").open("w") as file:
        writer = csv.DictWriter(file, list(samples[0]))
        writer.writeheader()
        writer.writerows(samples)
    draw(samples, state / "soak.png")
    return wrong


def judge_tables(world: World, mended: Path) -> list[str]:
    """Return what the tables do not hold that they should, and what is left over."""
    wrong = [f"left: {name}" for name in checker.left_tables(world.direct)]
    wrong += [f"left: {name}" for name in checker.left_files(world.staging)]
    wrong += world.left_processes()
    for table, source in {TABLE: world.source, MENDED: mended}.items():
        wrong += checker.judge_ledger(world.direct, table)
        for shard in range(SHARDS):
            wrong += checker.compare_shard(world.direct, table, source, shard)
    return wrong


def judge_growth(samples: list[dict[str, float]]) -> list[str]:
    """Return what has grown."""
    quarter = len(samples) // 4
    grown = []
    for name, factor in ALLOWED_GROWTH.items():
        before = statistics.median(s[name] for s in samples[quarter : 2 * quarter])
        after = statistics.median(s[name] for s in samples[-quarter:])
        print(f"{name}: {before:,.0f} in the second quarter, {after:,.0f} in the last")
        if after > factor * max(before, 1):
            grown.append(f"{name} has grown")
    return grown


def draw(samples: list[dict[str, float]], file: Path) -> None:
    """Draw one small diagram below the other, over minutes."""
    import matplotlib.pyplot as plt

    names = list(ALLOWED_GROWTH)
    figure, axes = plt.subplots(len(names), 1, figsize=(8, 1.3 * len(names)), sharex=True)
    for axis, name in zip(axes, names, strict=True):
        axis.plot([s["minute"] for s in samples], [s[name] for s in samples], linewidth=1)
        axis.set_title(name, loc="left", fontsize=9)
        axis.set_ylim(0, 1.2 * max(s[name] for s in samples))
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".state/soak"))
    parser.add_argument("--minutes", type=float, default=MINUTES)
    arguments = parser.parse_args()
    wrong = soak(arguments.state.absolute(), arguments.minutes)
    print("\n".join(wrong) or "Nothing has grown, nothing is left, every value is right.")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
