"""`python -m bench.kinds`: the kinds of search table beside each other, on hard vectors.

100,000 rows of images and texts in ten shards, searched by 500 image-like and 500 text-like queries
that are no rows, for what the gate chose, and by the first 50 of each otherwise. What should be
found is computed by numpy from the vectors as they were made. With `FULL=1` it is 1,000,000 rows,
and `ROWS=3000000` any other number; from a million rows on without the other methods of
`quantized`, and without `hnsw`, unless `HNSW=1`.
`TEXTS=1` takes real texts in their place (`bench.real_texts`), asked by words, phrases and texts.
Prints tables, writes `bench/kinds*.json`, draws recall against CPU into `docs/images/kinds*.svg`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.hard_vectors import HardVectors, Vectors
from bench.kinds_report import Cost, Costs, Measured, draw, show
from bench.measure import cpu_seconds
from bench.real_texts import RealTexts
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
from laion.clickhouse.search_table.recall import format_recall, lower_bound, measure_recall
from laion.clickhouse.search_table.search import as_parameter
from laion.errors import RecallTooLow

FULL = bool(os.environ.get("FULL"))
ROWS = int(os.environ.get("ROWS", "1000000" if FULL else "100000"))
SHARDS = 10
BATCH = 50_000
IS_LARGE = ROWS >= 1_000_000
TEXTS = bool(os.environ.get("TEXTS"))
QUERIES = 500
FEW = 50
"""So many of them ask what the gate did not choose."""
GATE_QUERIES = 100
TARGETS = (0.9, 0.0)
"""Of the gate, on queries of its own, tried in turn: made-up texts are hard to find by texts."""
TABLE = "bench"
METHODS = ("turboquant",) if IS_LARGE or TEXTS else ("turboquant", "rabitq", "int8")
WITH_HNSW = not IS_LARGE or bool(os.environ.get("HNSW"))
CHARTS = Path(__file__).parents[1] / "docs" / "images"
SHARES = (0.5, 0.1, 0.01, 0.001)


class Source(Protocol):
    """Rows and queries of some kinds, all of length 1; `searched` is the first of the columns."""

    name: str
    dimension: int
    rows: int
    columns: tuple[str, ...]
    searched: str
    query_kinds: tuple[str, ...]
    queries: dict[str, Vectors]

    def batches(self, size: int) -> Iterator[dict[str, Vectors]]: ...


@dataclass(frozen=True)
class Queries:
    """Queries of each kind, and by the share of rows that pass a filter what they should find."""

    vectors: dict[str, Vectors]
    truth: dict[float, dict[str, npt.NDArray[np.int64]]]


def main() -> None:
    source: Source = RealTexts(QUERIES) if TEXTS else HardVectors(ROWS, QUERIES)
    with (
        tempfile.TemporaryDirectory(prefix="laion-bench-") as name,
        running_server(Path(name)) as server,
        server.client() as client,
    ):
        bench = Bench(client, server.pid, source, load(client, source))
        measured = {"exact": bench.measure("exact")}
        for method in METHODS:
            measured[f"quantized, {method}"] = bench.measure("quantized", method)
        measured["ivf, turboquant"] = bench.measure("ivf", "turboquant")
        if WITH_HNSW:
            measured["hnsw, bf16"] = bench.measure("hnsw", "bf16")
    title = f"{source.rows:,} {source.name} of {source.dimension} dimensions"
    name = "kinds-texts" if TEXTS else "kinds-full" if IS_LARGE else "kinds"
    show(title, measured, Path(__file__).with_name(f"{name}.json"))
    if not IS_LARGE:
        draw(title, measured, CHARTS / f"{name}.svg")


def load(client: Client, source: Source) -> Queries:
    """Fill the base table, and find what queries should find meanwhile, batch by batch."""
    ensure_ledger(client)
    vectors = dict.fromkeys(source.columns, source.dimension)
    ensure_base_table(client, TABLE, TableIdentity(TABLE, vectors))
    best: dict[float, dict[str, list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]]] = {
        share: {kind: [] for kind in source.query_kinds} for share in (1.0, *SHARES)
    }
    first = 0
    for number, batch in enumerate(source.batches(BATCH)):
        own = batch[source.searched]
        places = np.arange(first, first + len(own))
        first += len(own)
        shards = places * SHARDS // source.rows
        ids = shards * 100_000_000 + places
        # A row passes the filter of a share when its similarity is at least 1 - share.
        similarity = np.random.default_rng([2, number]).random(len(own), dtype=np.float32)
        client.insert_arrow(TABLE, _as_table(ids, shards, batch, similarity))
        for share, kinds in best.items():
            passing = np.flatnonzero(similarity >= np.float32(1 - share))
            for kind, found in kinds.items():
                found.append(_nearest(source.queries[kind], own[passing], ids[passing]))
    client.command(f"OPTIMIZE TABLE {TABLE} FINAL", settings={"max_execution_time": 0})
    truth = {
        share: {kind: _merge(found) for kind, found in kinds.items()}
        for share, kinds in best.items()
    }
    return Queries(source.queries, truth)


def _as_table(
    ids: npt.NDArray[np.int64],
    shards: npt.NDArray[np.int64],
    vectors: dict[str, Vectors],
    similarity: Vectors,
) -> pa.Table:
    urls = [f"https://pictures.example/{row}/a-picture-of-{row % 977}.jpg" for row in ids]
    return pa.table(
        {
            "id": ids,
            "shard": shards.astype(np.uint16),
            "url": urls,
            "caption": [f"a picture of something that has the number {row}" for row in ids],
            "similarity": similarity,
            **{
                column: pa.FixedSizeListArray.from_arrays(some.ravel(), some.shape[1])
                for column, some in vectors.items()
            },
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

    def __init__(self, client: Client, pid: int, source: Source, queries: Queries) -> None:
        self.client, self.pid, self.searched = client, pid, source.searched
        self.queries = queries

    def measure(self, kind: str, quantization: str = "auto") -> Measured:
        """Build a search table, have its gate choose how it is searched, and ask it."""
        options = IndexOptions(kind=kind, quantization=quantization)
        builds = Builds(self.client, TABLE, TaskOrigin("bench", f"{kind} {quantization}"))
        before = cpu_seconds(self.pid) + time.process_time()
        begun = begin_build(builds, options)
        assert not isinstance(begun, Holder), begun
        plan, buckets = begun
        for bucket in buckets:
            build_bucket(builds, plan, bucket)
        build_cpu_s = cpu_seconds(self.pid) + time.process_time() - before
        began = time.process_time()
        for target in TARGETS:
            try:
                judged = measure_recall(
                    builds, plan, target=target, queries=GATE_QUERIES, budget=10**12
                )
            except RecallTooLow as error:
                print(error, flush=True)
            else:
                print(format_recall(judged, 1.0))
                break
        print(f"the gate took {time.process_time() - began:.0f} CPU s of the worker", flush=True)
        publish_build(builds, plan)
        profile = read_profile(self.client, TABLE, self.searched, plan)
        print(f"{kind} {quantization}: built for {build_cpu_s:.0f} CPU s, {profile}", flush=True)
        first = self.ask(plan, profile, FEW if kind == "exact" else QUERIES)
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
            chosen=self.ask_view(),
            first_step=first,
            curve=steps,
            filtered={f"{share:.1%}": self.ask_view(share) for share in shares},
            exact=first if kind == "exact" else self.ask(plan, None),
        )

    def ask(self, plan: BuildPlan, profile: SearchProfile | None, queries: int = FEW) -> Costs:
        """Ask for ids alone, by the statement that the gate asks."""
        kind = kind_of(plan.options)
        place = kind.place(TABLE, plan, in_use=True)
        question = Question(self.searched, "{target:Array(Float32)}")
        return self._costs(kind.search(TABLE, place, plan, question, profile), 1.0, queries)

    def ask_view(self, share: float = 1.0) -> Costs:
        """Ask the view, for what people want to see; of a share of the rows."""
        narrow = f", min_similarity = {np.float32(1 - share)!s}" if share < 1 else ""
        view = f"{TABLE}_near(q = {{target:Array(Float32)}}, k = {{limit:UInt32}}{narrow})"
        return self._costs(f"SELECT id, distance, url, caption FROM {view}", share, FEW)

    def _costs(self, sql: str, share: float, queries: int) -> Costs:
        return {
            kind: self._cost(sql, vectors[:queries], self.queries.truth[share][kind][:queries])
            for kind, vectors in self.queries.vectors.items()
        }

    def _cost(self, sql: str, vectors: Vectors, truth: npt.NDArray[np.int64]) -> Cost:
        targets = [as_parameter(vector) for vector in vectors]
        self.client.query(sql, parameters={"target": targets[0], "limit": 10})
        before, read, found, seconds = cpu_seconds(self.pid), self._read_bytes(), [], []
        for target in targets:
            began = time.perf_counter()
            result = self.client.query(sql, parameters={"target": target, "limit": 10})
            seconds.append(time.perf_counter() - began)
            found.append([row[0] for row in result.result_rows])
        cpu_s = cpu_seconds(self.pid) - before
        right = [
            len(set(ids) & set(wanted)) / len(wanted) if len(wanted) else 1.0
            for ids, wanted in zip(found, truth, strict=True)
        ]
        return Cost(
            recall=fmean(right),
            recall_low=lower_bound(right),
            cpu_ms=1000 * cpu_s / len(targets),
            read_mb=(self._read_bytes() - read) / len(targets) / 1e6,
            rows=fmean(map(len, found)),
            p50_ms=1000 * float(np.median(seconds)),
        )

    def _read_bytes(self) -> int:
        """Return what the server has read so far: a query's own count omits its subqueries."""
        sql = "SELECT sum(value) FROM system.events WHERE event = 'SelectedBytes'"
        return int(self.client.query(sql).result_rows[0][0])


if __name__ == "__main__":
    main()
