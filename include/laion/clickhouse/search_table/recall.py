"""The recall gate: what searches of a new search table find, of what they should find.

Standing queries that are no rows of the searched column are answered exactly and by the index. One
half of each kind of query chooses the cheapest search settings that reach the target, the other
half says what these find; where that is too little, the next settings are tried. Searches use the
settings that satisfy every kind; when none do, the build is rejected and the table in use stays.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from laion.clickhouse.client import insert_rows, typed_errors
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SearchProfile
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan, BuildState
from laion.clickhouse.search_table.probe import Asked, Probe
from laion.clickhouse.search_table.profiles import stored_knobs
from laion.clickhouse.search_table.standing_queries import KINDS, StandingQuery, standing_queries
from laion.clickhouse.search_table.truth import (
    Truth,
    affordable_queries,
    choose_buckets,
    ground_truth,
)
from laion.errors import IndexBuildFailed, RecallTooLow

log = logging.getLogger(__name__)

EXACT_QUERIES = 10
EXACT_BUDGET_S = 20.0
"""Brute force is timed on up to so many queries, and for so long."""
ONE_SIDED_95 = 1.645
"""Standard errors below a mean that 95 % of samples' means are above."""


@dataclass(frozen=True)
class Recall:
    """What one kind of query finds in one column with the profile that searches use.

    `low` is the lower 95 % bound of `at_10`, `own_profile` the cheapest by which this kind alone
    reaches the target, or `profile` when none does. Latencies are the client's, `read_bytes` a
    search's mean.
    """

    column: str
    kind: str
    profile: SearchProfile
    own_profile: SearchProfile
    queries: int
    at_10: float
    low: float
    at_100: float
    read_bytes: int
    ann_ms: tuple[float, float, float]
    exact_ms: tuple[float, float, float]


def measure_recall(
    builds: Builds, plan: BuildPlan, *, target: float, queries: int, budget: int
) -> list[Recall]:
    """Measure a build, choose its search settings and accept it.

    `queries` are asked of each kind and column; `budget` bounds the exact distances computed: when
    all rows would take more, fewer are asked, and some buckets left out of the measurement.
    Raises RecallTooLow, IndexBuildFailed when a search does not use the index or the build has no
    rows, IndexBuildLost, ClickHouseError.
    """
    client, kind = builds.client, kind_of(plan.options)
    if kind.is_live:
        with builds.holding(plan.build_id):
            builds.append(plan.build_id, BuildState.ACCEPTED)
        log.info("Every row is compared: there is nothing that searches could miss.")
        return []
    searched = kind.place(builds.table, plan, in_use=False)
    states = builds.buckets(plan.build_id)
    if not any(states[bucket].rows for bucket in plan.buckets):
        builds.append(plan.build_id, BuildState.REJECTED)
        left_out = sum(states[bucket].left_out for bucket in plan.buckets)
        raise IndexBuildFailed(
            f"{searched} is empty: each of the {left_out:,} rows has a vector that is zero or not "
            "finite, and so no direction. The search table in use stays; look at the vectors of "
            f"{builds.table}, or start with index_kind exact."
        )
    with builds.holding(plan.build_id), typed_errors(f"measure the recall of {searched}"):
        kind.complete(client, builds.table, plan)
        count = affordable_queries(builds, plan, queries, budget)
        asked = standing_queries(client, builds.table, searched, plan, count)
        covered, sample = choose_buckets(builds, plan, sum(map(len, asked.values())), budget)
        results: list[Recall] = []
        for column, column_queries in asked.items():
            some = covered if sample < 1 else None
            probe = Probe(client, builds.table, searched, column, plan, some)
            if column_queries:
                probe.check_uses_index(column_queries[0].vector)
            truth = ground_truth(builds, plan, column, column_queries, covered)
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
    lines = []
    for r in results:
        alone = f" ({r.own_profile} is enough for these alone)"
        lines.append(
            f"{r.column}, {r.queries} {r.kind} queries: recall@10 {r.at_10:.3f} (at least "
            f"{r.low:.3f} with 95 % confidence), @100 {r.at_100:.3f} with {r.profile}"
            f"{alone if r.own_profile != r.profile else ''}; p50 {r.ann_ms[0]:.1f} ms and "
            f"{r.read_bytes / 1e6:,.1f} MB read, by brute force {r.exact_ms[0]:.1f} ms"
        )
    if sample < 1:
        lines.append(f"Measured on {sample:.0%} of the rows; LAION_RECALL_BUDGET sets how many.")
    return "\n".join(lines)


def lower_bound(recalls: Sequence[float]) -> float:
    """Return the lower one-sided 95 % bound of the mean of a sample, by its standard error.

    Of a single value that is the value: nothing is known of how values differ.
    """
    if len(recalls) < 2:
        return fmean(recalls)
    error = stdev(recalls) / math.sqrt(len(recalls))
    return max(0.0, fmean(recalls) - ONE_SIDED_95 * error)


def _tune(
    probe: Probe, queries: list[StandingQuery], truth: dict[int, Truth], target: float
) -> list[Recall]:
    """Return the recall of each kind with the first profile by which all reach the target.

    On the half that chooses and on the half that is reported. When none does, with the profile by
    which the worst kind did best. The second half is asked only where the first is content.
    """
    if not queries:
        return []
    ladder = probe.kind.ladder
    probe.ask(queries[0].vector, 10, ladder[0])  # Reads the index into the server's cache.
    choosing, judging = _halves(queries)
    own: dict[str, SearchProfile] = {}
    worst: dict[SearchProfile, float] = {}
    judged: dict[SearchProfile, dict[str, Asked]] = {}
    for profile in ladder:
        means = _means(probe.ask_all(choosing, truth, 10, profile))
        for kind, mean in means.items():
            if mean >= target:
                own.setdefault(kind, profile)
        worst[profile] = min(means.values())
        if worst[profile] >= target:
            judged[profile] = probe.ask_all(judging, truth, 10, profile)
            worst[profile] = min(worst[profile], *_means(judged[profile]).values())
        if worst[profile] >= target:
            break
        log.info("%s: recall@10 %.3f with %s", probe.column, worst[profile], profile)
    profile = max(worst, key=lambda profile: worst[profile])
    found = judged.get(profile) or probe.ask_all(judging, truth, 10, profile)
    if worst[profile] >= target and (apart := _distinguished(probe, choosing, profile, own)):
        found_apart = probe.ask_all(judging, truth, 10, apart)
        if min(_means(found_apart).values()) >= target:
            profile, found = apart, found_apart
    at_100 = probe.ask_all(judging, truth, 100, profile)
    exact = _percentiles(_time_exact(probe, queries))
    return [
        Recall(
            column=probe.column,
            kind=kind,
            profile=profile,
            own_profile=own.get(kind, profile),
            queries=len(found[kind].recalls),
            at_10=fmean(found[kind].recalls),
            low=lower_bound(found[kind].recalls),
            at_100=fmean(at_100[kind].recalls),
            read_bytes=round(fmean(found[kind].read_bytes)),
            ann_ms=_percentiles(found[kind].seconds),
            exact_ms=exact,
        )
        for kind in KINDS
        if kind in found
    ]


def _distinguished(
    probe: Probe,
    queries: Sequence[StandingQuery],
    enough: SearchProfile,
    own: dict[str, SearchProfile],
) -> SearchProfile | None:
    asked: dict[str, list[Sequence[float]]] = {}
    for query in queries:
        asked.setdefault(query.kind, []).append(query.vector)
    table = probe.kind.table_of(probe.place, probe.column)
    return probe.kind.distinguish(probe.client, table, enough, own, asked)


def _means(asked: dict[str, Asked]) -> dict[str, float]:
    """Return the recall of each kind of query."""
    return {kind: fmean(one.recalls) for kind, one in asked.items()}


def _halves(queries: Sequence[StandingQuery]) -> tuple[list[StandingQuery], list[StandingQuery]]:
    """Return every other query of each kind, and the others; a single one is in both."""
    choosing, judging = [], []
    for kind in KINDS:
        of_kind = [query for query in queries if query.kind == kind]
        choosing += of_kind[::2]
        judging += of_kind[1::2] or of_kind
    return choosing, judging


def _time_exact(probe: Probe, queries: list[StandingQuery]) -> list[float]:
    seconds: list[float] = []
    for query in queries[:EXACT_QUERIES]:
        if sum(seconds) > EXACT_BUDGET_S:
            break
        seconds.append(probe.ask(query.vector, 10, None).seconds)
    return seconds


def _percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return p50, p95 and p99 in milliseconds."""
    if not seconds:
        return 0.0, 0.0, 0.0
    p50, p95, p99 = 1000 * np.percentile(seconds, (50, 95, 99))
    return float(p50), float(p95), float(p99)


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
            "own_profile": json.dumps(result.own_profile.to_json()),
            "recall_at_10": result.at_10,
            "recall_at_10_low": result.low,
            "read_bytes": result.read_bytes,
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
