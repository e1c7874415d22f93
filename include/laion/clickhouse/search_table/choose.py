"""Which kind of search table `auto` is: by rows, memory, disk, cores and version of the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from laion.clickhouse.search_table.kinds import OFFERS, load_kind
from laion.clickhouse.search_table.kinds.kind import Estimate, SizedPlan
from laion.clickhouse.search_table.plan import FIRST_KIND, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexTooLarge, ServerTooOld
from laion.units import format_gb
from laion.vectors import Dimensions

ENOUGH_CPU_S = 0.1
"""What a search may take: of the kinds that keep it, the cheapest to build is chosen."""
KEPT = 2
"""So many times that will do for the kind in use: a table is not moved back and forth."""
ROW_BYTES = 200
"""Of a row beside its vectors, in a search table that has all of it."""
LONGEST_BUILD_H = 72
"""Hours on the server's cores."""


@dataclass(frozen=True)
class _Candidate:
    """A kind, with its plan and the disk that all of it takes, or the reason why it cannot be."""

    kind: str
    plan: SizedPlan | None
    disk_bytes: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.kind}: {self.reason}"
        needs = self.plan.estimate
        text = (
            f"{self.kind}: {_seconds(needs.search_cpu_s)} CPU seconds a search, "
            f"{format_gb(needs.memory_bytes)} of RAM, {format_gb(self.disk_bytes)} of disk, "
            f"{needs.build_cpu_s / 3600:,.1f} CPU hours to build"
        )
        return f"{text} ({self.reason})" if self.reason else text


def choose_kind(
    rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts, kept: str = ""
) -> SizedPlan:
    """Return the plan of the kind that suits best; `kept` is the kind in use.

    Of the kinds that the server can have, the cheapest to build whose searches take ENOUGH_CPU_S
    at most; where none does, the one with the quickest searches. Raises IndexTooLarge when there is
    none at all, BadRequest for options that no kind has.
    """
    candidates = list(_candidates(rows, dimensions, options, server, kept))
    possible = {c.kind: c.plan for c in candidates if c.plan is not None and not c.reason}
    if not possible:
        weighed = "; ".join(map(str, candidates))
        raise IndexTooLarge(
            f"no kind of search table suits {rows:,} rows: {weighed}. Load fewer shards, start "
            "with build_index off (searches then read every row), or take a larger server."
        )

    def build(kind: str) -> tuple[float, float]:
        needs = possible[kind].estimate
        return needs.build_cpu_s, needs.search_cpu_s

    quick = [
        kind
        for kind, plan in possible.items()
        if plan.estimate.search_cpu_s <= ENOUGH_CPU_S * (KEPT if kind == kept else 1)
    ]
    if kept in quick:
        chosen, why = kept, "is in use, and quick enough"
    elif quick:
        chosen = min(quick, key=build)
        why = f"is the cheapest to build whose searches take at most {ENOUGH_CPU_S} CPU seconds"
    else:
        chosen = min(possible, key=lambda kind: possible[kind].estimate.search_cpu_s)
        why = f"has the quickest searches; none takes {ENOUGH_CPU_S} CPU seconds or less"
    weighed = "; ".join(map(str, candidates))
    choice = f"index_kind auto is {chosen}, which {why}. {weighed}."
    return replace(possible[chosen], choice=choice)


def _candidates(
    rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts, kept: str
) -> Iterator[_Candidate]:
    """Yield all kinds. Raises BadRequest when none has the metric and quantization asked for."""
    refused: dict[str, BadRequest] = {}
    names = [name for name, offer in OFFERS.items() if offer.is_automatic or name == kept]
    for name in names:
        try:
            kind = load_kind(name)
            plan = kind.plan(rows, dimensions, replace(options, kind=name), server)
        except (IndexTooLarge, ServerTooOld, BadRequest) as error:
            if isinstance(error, BadRequest):
                refused[name] = error
            yield _Candidate(name, None, reason=error.reason)
        else:
            disk_bytes = plan.estimate.disk_bytes
            if kind.copies_rows:
                disk_bytes += rows * (4 * sum(dimensions.values()) + ROW_BYTES)
            # What is in use is on the disk already, and only what changed is built again.
            reason = "" if name == kept else _hindrance(plan.estimate, disk_bytes, server)
            yield _Candidate(name, plan, disk_bytes, reason)
    if len(refused) == len(names):
        raise refused[FIRST_KIND]


def _hindrance(needs: Estimate, disk_bytes: int, server: ServerFacts) -> str:
    """Return why a server cannot have what could be planned for it; empty when it can."""
    if server.free_bytes is not None and disk_bytes > server.free_bytes:
        return f"the server has {format_gb(server.free_bytes)} of disk free"
    hours = needs.build_cpu_s / 3600 / max(1, server.threads)
    if hours > LONGEST_BUILD_H:
        return f"{hours:,.0f} hours on {server.threads} threads"
    return ""


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}"
