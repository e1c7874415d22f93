"""The recall gate: what searches of a new search table find, of what they should find.

Standing queries that are no rows of the searched column are answered exactly and by the index. The
cheapest search settings that reach the target are stored for searches to use; when none does, the
build is rejected and the table in use stays.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laion.clickhouse.client import Client, insert_rows, read_rows, typed_errors
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import Kind, Question, SearchProfile
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan, BuildState
from laion.clickhouse.search_table.profiles import stored_knobs
from laion.clickhouse.search_table.search import as_parameter
from laion.clickhouse.search_table.standing_queries import KINDS, StandingQuery, standing_queries
from laion.clickhouse.statements import statement
from laion.errors import IndexBuildFailed, RecallTooLow

log = logging.getLogger(__name__)

TRUTH_DEPTH = 128
"""Exact neighbours kept per query and bucket: 100, the excluded ones, and some for ties."""
TIE = 1e-6
"""Distances closer than this count as equal; float32 resolves about 1e-7 near 1."""
EXACT_QUERIES = 10
EXACT_BUDGET_S = 20.0
"""Brute force is timed on up to so many queries, and for so long."""

Truth = list[tuple[float, int]]
ByKind = dict[str, list[float]]


@dataclass(frozen=True)
class Recall:
    """What one kind of query finds in one column with one profile; latencies are the client's."""

    column: str
    kind: str
    profile: SearchProfile
    queries: int
    at_10: float
    at_100: float
    ann_ms: tuple[float, float, float]
    exact_ms: tuple[float, float, float]


def measure_recall(
    builds: Builds, plan: BuildPlan, *, target: float, queries: int, budget: int
) -> list[Recall]:
    """Measure a build, choose its search settings and accept it.

    `queries` are asked of each kind and column; `budget` bounds the exact distances computed: when
    all rows would take more, some buckets are left out of the measurement.
    Raises RecallTooLow, IndexBuildFailed when a search does not use the index, IndexBuildLost,
    ClickHouseError.
    """
    client, kind = builds.client, kind_of(plan.options)
    searched = kind.place(builds.table, plan, in_use=False)
    with builds.holding(plan.build_id), typed_errors(f"measure the recall of {searched}"):
        asked = standing_queries(client, builds.table, searched, plan, queries)
        covered, sample = choose_buckets(builds, plan, sum(map(len, asked.values())), budget)
        results: list[Recall] = []
        for column, column_queries in asked.items():
            some = covered if sample < 1 else None
            probe = Probe(client, builds.table, searched, column, plan, some)
            if column_queries:
                probe.check_uses_index(column_queries[0].vector)
            truth = ground_truth(builds, plan, searched, column, column_queries, covered)
            results += _tune(probe, column_queries, truth, target)
        accepted = all(result.at_10 >= target for result in results)
        _record(builds, plan, results, target, sample, accepted=accepted)
        builds.append(plan.build_id, BuildState.ACCEPTED if accepted else BuildState.REJECTED)
    text = format_recall(results, sample)
    if not accepted:
        raise RecallTooLow(
            f"{searched} does not reach recall@10 of {target} with any search settings:\n{text}\n"
            "The search table in use stays. Choose a finer index_quantization or a lower "
            "recall_target and start again; the rejected table stays until the next build."
        )
    log.info("%s", text)
    return results


def format_recall(results: Sequence[Recall], sample: float) -> str:
    """Return what was measured as lines of text."""
    lines = [
        f"{r.column}, {r.queries} {r.kind} queries: recall@10 {r.at_10:.3f}, @100 {r.at_100:.3f} "
        f"with {r.profile}; p50 {r.ann_ms[0]:.1f} ms, by brute force {r.exact_ms[0]:.1f} ms"
        for r in results
    ]
    if sample < 1:
        lines.append(f"Measured on {sample:.0%} of the rows; LAION_RECALL_BUDGET sets how many.")
    return "\n".join(lines)


@dataclass(frozen=True)
class Probe:
    """Asks one column of a search table, or only some of its buckets, for the nearest rows.

    `base` is the base table, `place` where the search table is searched.
    """

    client: Client
    base: str
    place: str
    column: str
    plan: BuildPlan
    buckets: tuple[int, ...] | None = None

    @property
    def kind(self) -> Kind:
        return kind_of(self.plan.options)

    def nearest(
        self, vector: Sequence[float], limit: int, profile: SearchProfile | None
    ) -> list[tuple[int, float]]:
        """Return (id, distance), nearest first; exact without a profile."""
        return [(row[0], row[1]) for row in self._ask("", vector, limit, profile)]

    def check_uses_index(self, vector: Sequence[float]) -> None:
        """Raise IndexBuildFailed unless the server answers by the column's index.

        It does not where the index is of another metric; then the search is exact, finds
        everything, and reads every row.
        """
        explained = self._ask("EXPLAIN indexes = 1 ", vector, 10, self.kind.ladder[0])
        lines = [row[0] for row in explained]
        if not self.kind.is_used(lines, self.column):
            raise IndexBuildFailed(
                f"{self.place}: a search of {self.column} by {self.plan.options.metric} does not "
                "use the index, but reads every row; the search table in use stays. The server's "
                "plan is:\n" + "\n".join(lines)
            )

    def _ask(
        self, explain: str, vector: Sequence[float], limit: int, profile: SearchProfile | None
    ) -> Sequence[Sequence[Any]]:
        listed = ", ".join(f"'{bucket}'" for bucket in self.buckets or ())
        question = Question(
            columns="id",
            vector=self.column,
            target="{target:Array(Float32)}",
            conditions=[f"_partition_id IN ({listed})"] if listed else [],
        )
        return self.client.query(
            explain + self.kind.search(self.base, self.place, self.plan, question, profile),
            parameters={"target": as_parameter(vector), "limit": limit},
            settings=profile.settings() if profile else dict(self.kind.exact_settings),
        ).result_rows

    def distances(self, vector: Sequence[float], ids: Sequence[int]) -> dict[int, float]:
        """Return the exact distances of some rows."""
        distance = f"{self.plan.options.metric}({self.column}, {{target:Array(Float32)}})"
        table = self.kind.table_of(self.place, self.column)
        result = self.client.query(
            f"SELECT id, {distance} FROM {table} WHERE id IN {{ids:Array(Int64)}}",
            parameters={"target": as_parameter(vector), "ids": ids},
        )
        return {row[0]: row[1] for row in result.result_rows}


def recall_of(
    found: Sequence[int], truth: Truth, k: int, look_up: Callable[[list[int]], dict[int, float]]
) -> float:
    """Return the share of the `k` nearest that was found; equally near rows are as good.

    `truth` is (distance, id), nearest first, at least `k` long unless the table is smaller.
    `look_up` returns exact distances; it is asked only when ties go on behind the truth's end.
    """
    wanted = min(k, len(truth))
    if not wanted:
        return 1.0
    limit = truth[wanted - 1][0] + TIE
    near = {row_id for distance, row_id in truth[: bisect_right(truth, (limit, 2**63))]}
    hits = sum(row_id in near for row_id in found[:k])
    unknown = [row_id for row_id in found[:k] if row_id not in near]
    if unknown and truth[-1][0] <= limit:
        hits += sum(distance <= limit for distance in look_up(unknown).values())
    return min(hits, wanted) / wanted


def _tune(
    probe: Probe, queries: list[StandingQuery], truth: dict[int, Truth], target: float
) -> list[Recall]:
    """Return the recall of each kind with the first profile by which all reach the target.

    When none does, with the profile by which the worst kind did best.
    """
    if queries:
        probe.nearest(
            queries[0].vector, 10, probe.kind.ladder[0]
        )  # Reads the index into the server's cache.
    best: tuple[float, SearchProfile, ByKind, ByKind] | None = None
    for profile in probe.kind.ladder:
        at_10, seconds = ask(probe, queries, truth, 10, profile)
        worst = min((float(np.mean(values)) for values in at_10.values()), default=1.0)
        if best is None or worst > best[0]:
            best = worst, profile, at_10, seconds
        if worst >= target:
            break
        log.info("%s: recall@10 %.3f with %s", probe.column, worst, profile)
    assert best is not None
    _, profile, at_10, seconds = best
    at_100 = ask(probe, queries, truth, 100, profile)[0]
    exact = _percentiles(_time_exact(probe, queries))
    return [
        Recall(
            column=probe.column,
            kind=kind,
            profile=profile,
            queries=len(at_10[kind]),
            at_10=float(np.mean(at_10[kind])),
            at_100=float(np.mean(at_100[kind])),
            ann_ms=_percentiles(seconds[kind]),
            exact_ms=exact,
        )
        for kind in KINDS
        if kind in at_10
    ]


def ask(
    probe: Probe,
    queries: list[StandingQuery],
    truth: dict[int, Truth],
    k: int,
    profile: SearchProfile,
) -> tuple[ByKind, ByKind]:
    """Ask every query of the index; return the recall@k, and the seconds, of each by kind."""
    recalls: ByKind = {}
    seconds: ByKind = {}
    for query in queries:
        began = time.perf_counter()
        nearest = probe.nearest(query.vector, k + len(query.excluded), profile)
        seconds.setdefault(query.kind, []).append(time.perf_counter() - began)
        found = [row_id for row_id, _ in nearest if row_id not in query.excluded]

        def look_up(ids: list[int], query: StandingQuery = query) -> dict[int, float]:
            return probe.distances(query.vector, ids)

        recall = recall_of(found, truth[query.number], k, look_up)
        recalls.setdefault(query.kind, []).append(recall)
    return recalls, seconds


def _time_exact(probe: Probe, queries: list[StandingQuery]) -> list[float]:
    seconds: list[float] = []
    for query in queries[:EXACT_QUERIES]:
        if sum(seconds) > EXACT_BUDGET_S:
            break
        began = time.perf_counter()
        probe.nearest(query.vector, 10, None)
        seconds.append(time.perf_counter() - began)
    return seconds


def _percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return p50, p95 and p99 in milliseconds."""
    if not seconds:
        return 0.0, 0.0, 0.0
    p50, p95, p99 = 1000 * np.percentile(seconds, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def choose_buckets(
    builds: Builds, plan: BuildPlan, queries: int, budget: int
) -> tuple[tuple[int, ...], float]:
    """Return the buckets to measure, as many as the budget allows, and their share of the rows."""
    states = builds.buckets(plan.build_id)
    total = sum(states[bucket].rows for bucket in plan.buckets)
    chosen: list[int] = []
    rows = 0
    for bucket in plan.buckets:
        if chosen and (rows + states[bucket].rows) * queries > budget:
            break
        chosen.append(bucket)
        rows += states[bucket].rows
    return tuple(chosen), rows / total if total else 1.0


def ground_truth(
    builds: Builds,
    plan: BuildPlan,
    searched: str,
    column: str,
    queries: list[StandingQuery],
    buckets: tuple[int, ...],
) -> dict[int, Truth]:
    """Return the nearest rows of every query, computing only what is not known of a bucket."""
    states = builds.buckets(plan.build_id)
    made_by = {bucket: states[bucket].made_by for bucket in buckets}
    names = {"table": builds.table, "root": plan.root, "column": column}
    known = _read_truth(builds.client, names, made_by)
    numbers = {query.number for query in queries}
    for bucket in buckets:
        if numbers <= known.get(bucket, {}).keys():
            continue
        began = time.monotonic()
        nearest = (
            f"groupArraySorted({TRUTH_DEPTH})"
            f"(({plan.options.metric}({column}, queries[{query.number}]), id))"
            for query in queries
        )
        builds.client.command(
            statement(
                "compute_truth",
                shadow=kind_of(plan.options).table_of(searched, column),
                literals={"nearest": ",\n        ".join(nearest)},
            ),
            parameters={**names, "bucket": bucket, "made_by": made_by[bucket]},
            settings={"async_insert": 0},
        )
        log.info(
            "%s: exact answers of bucket %d took %.1f s", column, bucket, time.monotonic() - began
        )
    known = _read_truth(builds.client, names, made_by)
    excluded = {query.number: set(query.excluded) for query in queries}
    return {
        number: sorted(
            pair
            for bucket in buckets
            for pair in known.get(bucket, {}).get(number, [])
            if pair[1] not in excluded[number]
        )
        for number in excluded
    }


def _read_truth(
    client: Client, names: dict[str, str], made_by: dict[int, str]
) -> dict[int, dict[int, Truth]]:
    known: dict[int, dict[int, Truth]] = {}
    for row in read_rows(client, "read_truth", **names):
        bucket = row["bucket"]
        if made_by.get(bucket) == row["made_by"]:
            truth = list(zip(row["distances"], row["ids"], strict=True))
            known.setdefault(bucket, {})[row["number"]] = truth
    return known


def _record(
    builds: Builds,
    plan: BuildPlan,
    results: list[Recall],
    target: float,
    sample: float,
    *,
    accepted: bool,
) -> None:
    rows = sum(bucket.rows for bucket in builds.buckets(plan.build_id).values())
    history = [
        {
            "table": builds.table,
            "build_id": plan.build_id,
            "column": result.column,
            "kind": result.kind,
            "queries": result.queries,
            "rows": rows,
            "recall_sample": sample,
            **stored_knobs(result.profile),
            "recall_at_10": result.at_10,
            "recall_at_100": result.at_100,
            "target": target,
            "is_accepted": accepted,
            **dict(zip(("ann_p50_ms", "ann_p95_ms", "ann_p99_ms"), result.ann_ms, strict=True)),
            **dict(
                zip(("exact_p50_ms", "exact_p95_ms", "exact_p99_ms"), result.exact_ms, strict=True)
            ),
        }
        for result in results
    ]
    insert_rows(builds.client, "recall_history", history)
    if accepted:
        worst = {
            column: min(r.at_10 for r in results if r.column == column)
            for column in {r.column for r in results}
        }
        profiles = {
            result.column: {
                "table": builds.table,
                "build_id": plan.build_id,
                "column": result.column,
                "metric": plan.options.metric,
                **stored_knobs(result.profile),
                "recall_at_10": worst[result.column],
            }
            for result in results
        }
        insert_rows(builds.client, "search_profiles", list(profiles.values()))
