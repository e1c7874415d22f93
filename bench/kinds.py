"""`python -m bench.kinds`: the kinds of search table beside each other, on hard vectors.

100,000 rows of images and texts in ten shards, searched by 100 image-like and 100 text-like queries
that are no rows. What should be found is computed by numpy from the vectors as they were made. With
`FULL=1` it is 1,000,000 rows, and `ROWS=3000000` any other number; from a million rows on with half
as many queries, without the other methods of `quantized`, and without `hnsw`, unless `HNSW=1`.
Prints tables, writes `bench/kinds.json`, and draws recall against CPU into `docs/images/kinds.svg`.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from bench.hard_vectors import DIMENSION, HardVectors, Vectors
from bench.measure import cpu_seconds
from bench.server import running_server
from laion.clickhouse.client import Client
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.clickhouse.search_table.build import begin_build, build_bucket, publish_build
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SearchProfile
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.profiles import read_profile
from laion.clickhouse.search_table.recall import measure_recall
from laion.clickhouse.search_table.search import as_parameter
from laion.errors import RecallTooLow
from laion.vectors import IMAGE, TEXT

FULL = bool(os.environ.get("FULL"))
ROWS = int(os.environ.get("ROWS", "1000000" if FULL else "100000"))
SHARDS = 10
BATCH = 50_000
IS_LARGE = ROWS >= 1_000_000
QUERIES = 50 if IS_LARGE else 100
GATE_QUERIES = 100
TARGET = 0.94
"""Of the gate, on queries of its own."""
TABLE = "bench"
METHODS = ("turboquant",) if IS_LARGE else ("turboquant", "rabitq", "int8")
WITH_HNSW = not IS_LARGE or bool(os.environ.get("HNSW"))
SHARES = (0.5, 0.1, 0.01, 0.001)
RESULT = Path(__file__).with_name("kinds-full.json" if IS_LARGE else "kinds.json")
CHART = Path(__file__).parents[1] / "docs" / "images" / "kinds.svg"
QUERY_KINDS = ("image-like", "text-like")


@dataclass(frozen=True)
class Cost:
    """Of one search, on average: recall@10, CPU ms of the server, MB read, rows; p50 in ms."""

    recall: float
    cpu_ms: float
    read_mb: float
    rows: float
    p50_ms: float


Costs = dict[str, Cost]
"""By kind of query."""


@dataclass
class Measured:
    """What a kind took to build, and what its searches find and take.

    `chosen` is by the view, with the settings that the gate chose; `first_step` the same without
    the columns that are shown; `curve` all settings that the gate tries; `filtered` is by the share
    of rows that pass; `exact` compares all vectors of the search table, without its index.
    """

    build_cpu_s: float
    disk_mb: float
    profile: str
    chosen: Costs
    first_step: Costs
    curve: dict[str, Costs]
    filtered: dict[str, Costs]
    exact: Costs


@dataclass(frozen=True)
class Queries:
    """Queries of each kind, and by the share of rows that pass a filter what they should find."""

    vectors: dict[str, Vectors]
    truth: dict[float, dict[str, npt.NDArray[np.int64]]]


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="laion-bench-") as name,
        running_server(Path(name)) as server,
        server.client() as client,
    ):
        queries = load(client, HardVectors())
        bench = Bench(client, server.pid, queries)
        measured = {"exact": bench.measure("exact")}
        for method in METHODS:
            measured[f"quantized, {method}"] = bench.measure("quantized", method)
        if WITH_HNSW:
            measured["hnsw, bf16"] = bench.measure("hnsw", "bf16")
    show(measured, ratios(measured))
    if not IS_LARGE:
        draw(measured)


def load(client: Client, source: HardVectors) -> Queries:
    """Fill the base table, and find what queries should find meanwhile, batch by batch."""
    ensure_ledger(client)
    ensure_base_table(client, TABLE, TableIdentity(TABLE, dict.fromkeys((IMAGE, TEXT), DIMENSION)))
    images, texts = source.pairs(QUERIES, seed=10**6)
    vectors = {"image-like": images, "text-like": texts}
    best: dict[float, dict[str, list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]]] = {
        share: {kind: [] for kind in QUERY_KINDS} for share in (1.0, *SHARES)
    }
    for number, (shard, first, rows) in enumerate(_batches()):
        own, text = source.pairs(rows, seed=number)
        ids = shard * 100_000_000 + np.arange(first, first + rows)
        # A row passes the filter of a share when its similarity is at least 1 - share.
        similarity = np.random.default_rng([2, number]).random(rows, dtype=np.float32)
        client.insert_arrow(TABLE, _as_table(ids, shard, own, text, similarity))
        for share, kinds in best.items():
            passing = np.flatnonzero(similarity >= np.float32(1 - share))
            for kind, found in kinds.items():
                found.append(_nearest(vectors[kind], own[passing], ids[passing]))
    client.command(f"OPTIMIZE TABLE {TABLE} FINAL", settings={"max_execution_time": 0})
    truth = {
        share: {kind: _merge(found) for kind, found in kinds.items()}
        for share, kinds in best.items()
    }
    return Queries(vectors, truth)


def _batches() -> Iterator[tuple[int, int, int]]:
    """Yield (shard, first row, rows)."""
    per_shard = ROWS // SHARDS
    for shard in range(SHARDS):
        for first in range(0, per_shard, BATCH):
            yield shard, first, min(BATCH, per_shard - first)


def _as_table(
    ids: npt.NDArray[np.int64], shard: int, own: Vectors, text: Vectors, similarity: Vectors
) -> pa.Table:
    texts = [f"https://pictures.example/{row}/a-picture-of-{row % 977}.jpg" for row in ids]
    return pa.table(
        {
            "id": ids,
            "shard": np.full(len(ids), shard, np.uint16),
            "url": texts,
            "caption": [f"a picture of something that has the number {row}" for row in ids],
            "similarity": similarity,
            IMAGE: pa.FixedSizeListArray.from_arrays(own.ravel(), DIMENSION),
            TEXT: pa.FixedSizeListArray.from_arrays(text.ravel(), DIMENSION),
        }
    )


def _nearest(
    queries: Vectors, rows: Vectors, ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return similarities and ids of the ten nearest of a batch, or fewer."""
    scores = queries @ rows.T
    count = min(10, len(ids))
    places = np.argpartition(-scores, count - 1, axis=1)[:, :count] if count else scores.astype(int)
    return np.take_along_axis(scores, places, axis=1), ids[places]


def _merge(found: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> npt.NDArray[np.int64]:
    scores, ids = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    order = np.argsort(-scores, axis=1)[:, :10]
    return np.take_along_axis(ids, order, axis=1)


class Bench:
    """Builds kinds of search table of one base table, one after the other, and asks each."""

    def __init__(self, client: Client, pid: int, queries: Queries) -> None:
        self.client, self.pid, self.queries = client, pid, queries

    def measure(self, kind: str, quantization: str = "auto") -> Measured:
        """Build a search table, have its gate choose how it is searched, and ask it."""
        options = IndexOptions(kind=kind, quantization=quantization)
        builds = Builds(self.client, TABLE, TaskOrigin("bench", f"{kind} {quantization}"))
        before = cpu_seconds(self.pid)
        begun = begin_build(builds, options)
        assert not isinstance(begun, Holder), begun
        plan, buckets = begun
        for bucket in buckets:
            build_bucket(builds, plan, bucket)
        build_cpu_s = cpu_seconds(self.pid) - before
        try:
            measure_recall(builds, plan, target=TARGET, queries=GATE_QUERIES, budget=10**12)
        except RecallTooLow as error:
            print(error, flush=True)
            measure_recall(builds, plan, target=0.0, queries=GATE_QUERIES, budget=10**12)
        publish_build(builds, plan)
        profile = read_profile(self.client, TABLE, IMAGE, plan)
        print(f"{kind} {quantization}: built for {build_cpu_s:.0f} CPU s, {profile}", flush=True)
        first = self.ask(plan, profile)
        steps = {
            str(step): self.ask(plan, step)
            for step in kind_of(plan.options).ladder
            if kind != "exact"
        }
        shares = SHARES if quantization == METHODS[0] else ()
        states = builds.buckets(plan.build_id).values()
        return Measured(
            build_cpu_s=build_cpu_s,
            disk_mb=sum(state.index_bytes for state in states) / 1e6,
            profile=str(profile),
            chosen=_with_bytes_of(first, self.ask_view()),
            first_step=first,
            curve=steps,
            filtered={f"{share:.1%}": self.ask_view(share) for share in shares},
            exact=first if kind == "exact" else self.ask(plan, None),
        )

    def ask(self, plan: BuildPlan, profile: SearchProfile | None) -> Costs:
        """Ask for ids alone, by the statement that the gate asks."""
        kind = kind_of(plan.options)
        place = kind.place(TABLE, plan, in_use=True)
        question = Question(IMAGE, "{target:Array(Float32)}")
        return self._costs(kind.search(TABLE, place, plan, question, profile), 1.0)

    def ask_view(self, share: float = 1.0) -> Costs:
        """Ask the view, for what people want to see; of a share of the rows."""
        narrow = f", min_similarity = {np.float32(1 - share)!s}" if share < 1 else ""
        view = f"{TABLE}_near(q = {{target:Array(Float32)}}, k = {{limit:UInt32}}{narrow})"
        return self._costs(f"SELECT id, distance, url, caption FROM {view}", share)

    def _costs(self, sql: str, share: float) -> Costs:
        return {
            kind: self._cost(sql, vectors, self.queries.truth[share][kind])
            for kind, vectors in self.queries.vectors.items()
        }

    def _cost(self, sql: str, vectors: Vectors, truth: npt.NDArray[np.int64]) -> Cost:
        targets = [as_parameter(vector) for vector in vectors]
        self.client.query(sql, parameters={"target": targets[0], "limit": 10})
        before, found, seconds, read = cpu_seconds(self.pid), [], [], 0
        for target in targets:
            began = time.perf_counter()
            result = self.client.query(sql, parameters={"target": target, "limit": 10})
            seconds.append(time.perf_counter() - began)
            found.append([row[0] for row in result.result_rows])
            read += int(result.summary["read_bytes"])
        cpu_s = cpu_seconds(self.pid) - before
        right = [len(set(ids) & set(wanted)) for ids, wanted in zip(found, truth, strict=True)]
        return Cost(
            recall=sum(right) / truth.size if truth.size else 1.0,
            cpu_ms=1000 * cpu_s / len(targets),
            read_mb=read / len(targets) / 1e6,
            rows=fmean(map(len, found)),
            p50_ms=1000 * float(np.median(seconds)),
        )


def _with_bytes_of(first_step: Costs, view: Costs) -> Costs:
    """Add what finding the ids has read: the embedded ClickHouse does not count a subquery's."""
    return {
        kind: replace(cost, read_mb=cost.read_mb + first_step[kind].read_mb)
        for kind, cost in view.items()
    }


def ratios(measured: dict[str, Measured]) -> dict[str, float]:
    """Return what is claimed, each within this run."""
    codes = measured[f"quantized, {METHODS[0]}"]
    chosen, exact = codes.first_step, codes.exact
    found = {
        **{f"recall@10, {kind}": codes.chosen[kind].recall for kind in QUERY_KINDS},
        **{
            f"CPU of exact bf16 / of a search, {kind}": exact[kind].cpu_ms / chosen[kind].cpu_ms
            for kind in QUERY_KINDS
        },
        **{
            f"bytes of exact bf16 / of a search, {kind}": exact[kind].read_mb / chosen[kind].read_mb
            for kind in QUERY_KINDS
        },
        "second step: CPU with it / without": max(
            codes.chosen[kind].cpu_ms / chosen[kind].cpu_ms for kind in QUERY_KINDS
        ),
        "second step: MB more": max(
            codes.chosen[kind].read_mb - chosen[kind].read_mb for kind in QUERY_KINDS
        ),
    }
    for share, costs in codes.filtered.items():
        found[f"{share} pass: worst recall@10"] = min(cost.recall for cost in costs.values())
        found[f"{share} pass: fewest rows"] = min(cost.rows for cost in costs.values())
    if hnsw := measured.get("hnsw, bf16"):
        found["build CPU of hnsw bf16 / of quantized"] = hnsw.build_cpu_s / codes.build_cpu_s
    return found


def show(measured: dict[str, Measured], claimed: dict[str, float]) -> None:
    console = Console()
    builds = Table("kind", "build CPU s", "MB", "searched by", title=f"{ROWS:,} rows")
    searches = Table("kind", "queries", "recall@10", "CPU ms", "MB read", "p50 ms", "ids alone")
    for name, one in measured.items():
        builds.add_row(name, f"{one.build_cpu_s:.1f}", f"{one.disk_mb:.0f}", one.profile)
        for kind, cost in one.chosen.items():
            alone = one.first_step[kind]
            searches.add_row(
                name,
                kind,
                f"{cost.recall:.3f}",
                f"{cost.cpu_ms:.1f}",
                f"{cost.read_mb:.1f}",
                f"{cost.p50_ms:.1f}",
                f"{alone.cpu_ms:.1f} CPU ms, {alone.read_mb:.1f} MB, {alone.p50_ms:.1f} ms",
            )
    console.print(builds, searches)
    for what, ratio in claimed.items():
        console.print(f"{what}: {ratio:.3f}")
    facts = {
        "rows": ROWS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "measured": {name: asdict(one) for name, one in measured.items()},
        "ratios": {what: round(ratio, 3) for what, ratio in claimed.items()},
    }
    RESULT.write_text(json.dumps(facts, indent=2) + "\n")


def draw(measured: dict[str, Measured]) -> None:
    """Draw recall against CPU, of the settings that no cheaper ones of their kind surpass."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure, both = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axes, kind in zip(both, QUERY_KINDS, strict=True):
        for name, one in measured.items():
            costs = [c[kind] for c in (one.curve or {"": one.first_step}).values()]
            best: list[Cost] = []
            for cost in sorted(costs, key=lambda cost: cost.cpu_ms):
                if not best or cost.recall > best[-1].recall:
                    best.append(cost)
            axes.plot([c.cpu_ms for c in best], [c.recall for c in best], marker=".", label=name)
        exact = measured[f"quantized, {METHODS[0]}"].exact[kind]
        axes.plot(exact.cpu_ms, exact.recall, marker="s", color="grey", label="exact, bf16")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([10, 20, 30, 50, 100, 200]))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("CPU of a search, ms")
        axes.set_title(f"{kind} queries")
        axes.grid(visible=True, alpha=0.3)
    both[0].set_ylabel("recall@10")
    both[0].legend(fontsize="small")
    figure.suptitle(f"{ROWS:,} made-up vectors of {DIMENSION} dimensions")
    figure.tight_layout()
    figure.savefig(CHART, metadata={"Date": None})


if __name__ == "__main__":
    main()
