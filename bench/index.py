"""`python -m bench.index`: the search table, against bare usearch and against brute force.

100,000 rows of two 512-d vectors in 40 shards. Prints tables, writes `bench/index.json`, and draws
recall against latency into `docs/images/recall.svg`. With `FULL=1` it is 1,000,000 rows of images
alone and their `bf16` index, against brute force: some 40 CPU minutes, nothing drawn.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from bench.measure import cpu_seconds
from bench.server import running_server
from laion.clickhouse.client import Client
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.clickhouse.search_table.build import begin_build, build_bucket, publish_build
from laion.clickhouse.search_table.kinds.hnsw.sizing import estimate_graphs
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.probe import Probe
from laion.clickhouse.search_table.recall import Recall, measure_recall
from laion.clickhouse.search_table.standing_queries import standing_queries
from laion.clickhouse.search_table.truth import ground_truth
from laion.vectors import IMAGE, TEXT

FULL = bool(os.environ.get("FULL"))
ROWS = 1_000_000 if FULL else 100_000
SHARDS = 40
BUCKETS = IndexOptions().buckets
DIMENSION = 512
CLUSTERS = ROWS // 50
QUERIES = 50
TABLE = "bench"
COLUMNS = (IMAGE,) if FULL else (IMAGE, TEXT)
RESULT = Path(__file__).with_name("index-full.json" if FULL else "index.json")
CHART = Path(__file__).parents[1] / "docs" / "images" / "recall.svg"


@dataclass
class Measured:
    """What one quantization took and found."""

    cpu_s: float
    wall_s: float
    index_bytes: int
    estimated_bytes: int
    recalls: list[Recall] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)


Result = tuple[dict[str, Measured], dict[str, float]]
"""What each quantization took and found, and the ratios that are claimed."""


def main() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="laion-bench-") as name,
        running_server(Path(name)) as server,
        server.client() as client,
    ):
        load(client)
        measured, ratios = (search_only if FULL else compare)(client, server.pid)
    show(measured, ratios)
    if not FULL:
        draw(measured)


def search_only(client: Client, pid: int) -> Result:
    """Build one index and tell it from brute force."""
    bf16 = build(client, pid, "bf16")
    return {"bf16": bf16}, ratios_of_searches(bf16)


def compare(client: Client, pid: int) -> Result:
    """Build two indexes, bare usearch's beside one of them, and build again after a change."""
    usearch_s: list[float] = []
    bf16 = build(client, pid, "bf16", beside=lambda b: usearch_s.append(build_with_usearch(b)))
    part_s = rebuild_one_shard(client, pid)
    b1 = build(client, pid, "b1")
    return {"bf16": bf16, "b1": b1}, {
        **ratios_of_searches(bf16),
        "worst recall@10, b1 rescored": min(recall.at_10 for recall in b1.recalls),
        "build CPU / bare usearch's": bf16.cpu_s / (len(COLUMNS) * sum(usearch_s)),
        "index memory, bf16 / b1": bf16.index_bytes / b1.index_bytes,
        "rebuild after one of 40 shards / full build": part_s / bf16.cpu_s,
    }


def ratios_of_searches(bf16: Measured) -> dict[str, float]:
    return {
        "worst recall@10, bf16": min(recall.at_10 for recall in bf16.recalls),
        "brute force / index, p50 (bf16, worst)": min(
            recall.exact_ms[0] / recall.ann_ms[0] for recall in bf16.recalls
        ),
    }


def load(client: Client) -> None:
    """Fill a base table: clusters of images, and texts that lie near their image."""
    ensure_ledger(client)
    ensure_base_table(client, TABLE, TableIdentity(TABLE, dict.fromkeys(COLUMNS, DIMENSION)))
    for shard in range(SHARDS):
        load_shard(client, shard, seed=shard)


def load_shard(client: Client, shard: int, seed: int) -> None:
    rows = ROWS // SHARDS
    pairs = zip((IMAGE, TEXT), vectors(rows, seed), strict=True)
    client.insert_arrow(
        TABLE,
        pa.table(
            {
                "id": shard * 100_000_000 + np.arange(rows),
                "shard": np.full(rows, shard, np.uint16),
                "caption": [f"row {row} of shard {shard}" for row in range(rows)],
                **{name: _as_lists(values) for name, values in pairs if name in COLUMNS},
            }
        ),
        settings={"async_insert": 0},
    )


def vectors(rows: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return unit-length images and texts, shape (rows, 512): a cluster's centre and noise."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIMENSION), dtype=np.float32)
    own = centres[random.integers(0, CLUSTERS, rows)]
    pair = []
    for _ in range(2):
        noisy = own + 0.7 * random.standard_normal((rows, DIMENSION), dtype=np.float32)
        pair.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
    return pair[0], pair[1]


def build(
    client: Client, pid: int, quantization: str, beside: Callable[[int], None] | None = None
) -> Measured:
    """Build the whole search table and measure what it finds, at every rung of the ladder.

    `beside` is called after each of the table's BUCKETS, with its number.
    """
    builds = Builds(client, TABLE, TaskOrigin("bench", quantization))
    before, wall_s = cpu_seconds(pid), 0.0
    plan, buckets = _begin(builds, quantization)
    assert buckets == list(plan.buckets) == list(range(BUCKETS)), "the whole table is to be built"
    for bucket in buckets:
        began = time.perf_counter()
        build_bucket(builds, plan, bucket)
        wall_s += time.perf_counter() - began
        if beside:
            beside(bucket)
    states = builds.buckets(plan.build_id).values()
    measured = Measured(
        cpu_s=cpu_seconds(pid) - before,
        wall_s=wall_s,
        index_bytes=sum(state.index_bytes for state in states),
        estimated_bytes=estimate_graphs(ROWS, plan.vectors.values(), plan.options).memory_bytes,
    )
    measured.recalls = measure_recall(builds, plan, target=0.95, queries=QUERIES, budget=10**12)
    publish_build(builds, plan)
    measured.curve = climb(builds, plan)
    return measured


def climb(builds: Builds, plan: BuildPlan) -> list[tuple[float, float]]:
    """Return (p50 in ms, recall@10) of searches for images at every rung of the ladder."""
    searched = f"{TABLE}_search"
    queries = standing_queries(builds.client, TABLE, searched, plan, QUERIES)["image_embedding"]
    truth = ground_truth(builds, plan, "image_embedding", queries, plan.buckets)
    probe = Probe(builds.client, TABLE, searched, "image_embedding", plan)
    curve = []
    for profile in probe.kind.ladder:
        asked = probe.ask_all(queries, truth, 10, profile).values()
        all_seconds = list(chain(*(one.seconds for one in asked)))
        all_recalls = list(chain(*(one.recalls for one in asked)))
        curve.append((1000 * float(np.median(all_seconds)), float(np.mean(all_recalls))))
    return curve


def rebuild_one_shard(client: Client, pid: int) -> float:
    """Replace one shard of 40 and return the CPU seconds of the next build of the search table."""
    client.command(f"ALTER TABLE {TABLE} DROP PARTITION 7")
    load_shard(client, 7, seed=1007)
    # One row fewer, so that the shard is seen to have changed: there is no ledger of it here.
    client.command(f"DELETE FROM {TABLE} WHERE id = 700000000")
    client.command(f"OPTIMIZE TABLE {TABLE} PARTITION 7 FINAL")
    builds = Builds(client, TABLE, TaskOrigin("bench", "one shard"))
    before = cpu_seconds(pid)
    plan, buckets = _begin(builds, "bf16")
    for bucket in buckets:
        build_bucket(builds, plan, bucket)
    spent = cpu_seconds(pid) - before
    measure_recall(builds, plan, target=0.95, queries=QUERIES, budget=10**12)
    publish_build(builds, plan)
    return spent


def build_with_usearch(bucket: int) -> float:
    """Return the CPU seconds that bare usearch takes for a bucket's graph over the images."""
    from usearch.index import Index

    shards = range(bucket * SHARDS // BUCKETS, (bucket + 1) * SHARDS // BUCKETS)
    images = np.concatenate([vectors(ROWS // SHARDS, shard)[0] for shard in shards])
    before = time.process_time()
    index = Index(ndim=DIMENSION, metric="cos", dtype="bf16", connectivity=32, expansion_add=128)
    index.add(np.arange(len(images)), images, threads=os.cpu_count() or 1)
    return time.process_time() - before


def show(measured: dict[str, Measured], ratios: dict[str, float]) -> None:
    console = Console()
    builds = Table("index", "CPU s", "wall s", "MB", "estimate / MB", title=f"{ROWS:,} rows")
    searches = Table("index", "queries", "recall@10", "@100", "settings", "p50 ms", "brute force")
    for name, one in measured.items():
        builds.add_row(
            name,
            f"{one.cpu_s:.0f}",
            f"{one.wall_s:.0f}",
            f"{one.index_bytes / 1e6:.0f}",
            f"{one.estimated_bytes / one.index_bytes:.2f}",
        )
        for recall in one.recalls:
            searches.add_row(
                name,
                f"{recall.column.removesuffix('_embedding')}, {recall.kind}",
                f"{recall.at_10:.3f}",
                f"{recall.at_100:.3f}",
                str(recall.profile),
                f"{recall.ann_ms[0]:.1f}",
                f"{recall.exact_ms[0]:.1f}",
            )
    console.print(builds, searches)
    for what, ratio in ratios.items():
        console.print(f"{what}: {ratio:.3f}")
    RESULT.write_text(
        json.dumps(
            {
                "rows": ROWS,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "build_cpu_s": {name: round(one.cpu_s, 1) for name, one in measured.items()},
                "index_bytes": {name: one.index_bytes for name, one in measured.items()},
                "curves": {name: one.curve for name, one in measured.items()},
                "ratios": {what: round(ratio, 3) for what, ratio in ratios.items()},
            },
            indent=2,
        )
        + "\n"
    )


def draw(measured: dict[str, Measured]) -> None:
    """Draw recall against latency."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, one in measured.items():
        best = sorted(one.curve)
        axes.plot(*zip(*best, strict=True), marker="o", label=name)
    exact = float(np.mean([r.exact_ms[0] for one in measured.values() for r in one.recalls]))
    axes.axvline(exact, linestyle=":", color="grey", label="brute force")
    axes.set_xscale("log")
    axes.set_xlabel("p50 of a search, ms")
    axes.set_ylabel("recall@10")
    axes.set_title(f"{ROWS:,} clustered vectors of {DIMENSION} dimensions")
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(CHART, metadata={"Date": None})


def _begin(builds: Builds, quantization: str) -> tuple[BuildPlan, list[int]]:
    begun = begin_build(builds, IndexOptions(quantization=quantization))
    assert not isinstance(begun, Holder)
    return begun


def _as_lists(array: npt.NDArray[Any]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(array.ravel(), array.shape[1])


if __name__ == "__main__":
    main()
