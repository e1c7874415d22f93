"""What a search table of some shards says of one of the whole dataset: planned beside measured.

The plan rests on figures of made-up vectors and another machine. The first shards, on the server
that is to have all, show by what factor it is wrong; the text is made to be sent on as it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from laion.clickhouse.client import read_rows
from laion.clickhouse.search_table.choose import LONGEST_BUILD_H
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import Estimate
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BucketStage, BucketState, BuildPlan
from laion.clickhouse.search_table.profiles import read_knobs
from laion.clickhouse.search_table.sizing import plan_index
from laion.clickhouse.server import ServerFacts
from laion.errors import IndexTooLarge
from laion.units import format_gb

MEMORY_SHARE = 0.7
"""Of the server's, that may be taken."""
LEAST_SHARE = 0.9
"""Of the dataset; with more of it loaded there is nothing to foresee."""


@dataclass(frozen=True)
class Figure:
    """A figure as it was planned and measured, and what that makes of the plan for all rows."""

    name: str
    planned: float
    measured: float
    planned_for_all: float

    @property
    def for_all(self) -> tuple[float, float]:
        """The plan for all rows, corrected by what it was wrong by: the least and the most.

        That may be a fixed cost, or a factor. Of few rows the two are far apart.
        """
        fixed = max(0.0, self.planned_for_all + self.measured - self.planned)
        factor = self.measured / self.planned if self.planned else 1.0
        least, most = sorted((fixed, factor * self.planned_for_all))
        return least, most

    def __str__(self) -> str:
        numbers = (self.planned, self.measured, *self.for_all)
        planned, measured, least, most = (f"{number:,.3g}" for number in numbers)
        return f"{self.name:<22}{planned:>10}{measured:>10}   {least} to {most}"


def calibrate(
    builds: Builds, plan: BuildPlan, total_rows: int | None, server: ServerFacts
) -> str | None:
    """Return what a build says of one of `total_rows`, as text; None where it can say nothing.

    That is where the dataset's rows are not known, or nearly all are there, and of a kind without
    tables of its own. Raises ClickHouseError.
    """
    states = builds.buckets(plan.build_id)
    rows = sum(state.rows for state in states.values())
    if total_rows is None or kind_of(plan.options).is_live or rows > LEAST_SHARE * total_rows:
        return None
    found = read_rows(builds.client, "measured_recall", table=builds.table, build_id=plan.build_id)
    kind = kind_of(plan.options)
    memory = format_gb(server.memory_bytes) if server.memory_bytes else "unknown"
    lines = [
        f"Search table of {rows:,} rows, of {total_rows:,}: {kind.describe(plan.options)}; "
        + ", ".join(f"{name} of {size} numbers" for name, size in plan.vectors.items()),
        f"ClickHouse {server.version}, {server.threads} threads, memory {memory}",
        *(
            f"{row['column']}, {row['queries']} {row['kind']} queries: recall@10 "
            f"{row['recall_at_10']:.3f} (at least {row['recall_at_10_low']:.3f}), p50 "
            f"{row['ann_p50_ms']:.0f} ms, {row['read_bytes'] / 1e6:,.1f} MB read with "
            f"{kind.read_profile(read_knobs(row))}"
            for row in found
        ),
    ]
    # What the kind decides on by itself, it decides again for all rows.
    asked = replace(plan.options, parameters={})
    try:
        here, whole = (plan_index(n, plan.vectors, asked, server) for n in (rows, total_rows))
    except IndexTooLarge as error:
        return "\n".join([*lines, f"STOP: {error}"])
    figures = _figures(here.estimate, whole.estimate, states.values(), found, server.threads)
    return "\n".join(
        [
            *lines,
            f"{'':<22}{'planned':>10}{'measured':>10}   for all rows",
            *map(str, figures.values()),
            f"memory for all rows, as planned: {format_gb(whole.estimate.memory_bytes)}",
            _verdict(figures, whole.estimate, server),
        ]
    )


def _figures(
    here: Estimate,
    whole: Estimate,
    buckets: Collection[BucketState],
    found: Sequence[dict[str, Any]],
    threads: int,
) -> dict[str, Figure]:
    """Return figures by name. Of the build only what was not taken over from an earlier one."""
    built = [bucket for bucket in buckets if bucket.state == BucketStage.BUILT]
    share = sum(b.rows for b in built) / max(1, sum(b.rows for b in buckets))
    per_hour = 3600 * threads
    figures = [
        Figure(
            "build, hours",
            here.build_cpu_s * share / per_hour,
            sum(bucket.seconds for bucket in built) / 3600,
            whole.build_cpu_s / per_hour,
        ),
        Figure(
            "disk, GB",
            here.disk_bytes / 1e9,
            sum(bucket.index_bytes for bucket in buckets) / 1e9,
            whole.disk_bytes / 1e9,
        ),
        Figure(
            "slowest search, ms",
            1000 * here.search_cpu_s / threads,
            max((row["ann_p50_ms"] for row in found), default=0.0),
            1000 * whole.search_cpu_s / threads,
        ),
    ]
    return {figure.name: figure for figure in figures if figure.measured}


def _verdict(figures: Mapping[str, Figure], whole: Estimate, server: ServerFacts) -> str:
    """Return whether to go on, and if not, why."""
    if server.memory_bytes and whole.memory_bytes > MEMORY_SHARE * server.memory_bytes:
        return f"STOP: the server has {format_gb(server.memory_bytes)} of memory"
    limits = {"build, hours": float(LONGEST_BUILD_H)}
    if server.free_bytes is not None:
        limits["disk, GB"] = server.free_bytes / 1e9 + figures["disk, GB"].measured
    over = [
        (name, limit, figures[name].for_all)
        for name, limit in limits.items()
        if name in figures and figures[name].for_all[1] > limit
    ]
    reasons = "; ".join(
        f"{name}: {least:,.3g} to {most:,.3g}, of {limit:,.3g}"
        for name, limit, (least, most) in over
    )
    if any(least > limit for _, limit, (least, _) in over):
        return f"STOP: {reasons}"
    if over:
        return f"UNCLEAR, load more shards first: {reasons}"
    return "GO: the search table of all rows fits"
