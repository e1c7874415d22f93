"""Whether the search table in use still finds what it was accepted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table.in_use import again_if_replaced, read_in_use
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.search_table.probe import Probe
from laion.clickhouse.search_table.profiles import read_profile
from laion.clickhouse.search_table.standing_queries import standing_queries
from laion.clickhouse.search_table.truth import affordable_queries, choose_buckets, ground_truth


@dataclass(frozen=True)
class RecallNow:
    """The recall@10 of one kind of standing query, beside the target it was accepted for."""

    column: str
    kind: str
    at_10: float
    target: float

    @property
    def is_low(self) -> bool:
        return self.at_10 < self.target


def recheck_recall(client: Client, table: str, *, queries: int, budget: int) -> list[RecallNow]:
    """Ask the standing queries of the search table in use, with the settings searches use.

    `queries` and `budget` are those of `measure_recall`. Returns [] when there is no
    search table, and when it is the base table, every row of which is compared.
    Raises TableMismatch, IndexBuildFailed when a search does not use the index, ClickHouseError.
    """

    def ask() -> list[RecallNow]:
        plan = read_in_use(client, table)
        if plan is None or kind_of(plan.options).is_live:
            return []
        with typed_errors(f"measure the recall of the search table of {table}"):
            return list(_recheck(client, table, plan, queries, budget))

    return again_if_replaced(ask)


def _recheck(
    client: Client, table: str, plan: BuildPlan, queries: int, budget: int
) -> Iterator[RecallNow]:
    builds = Builds(client, table, TaskOrigin("", ""))
    searched = kind_of(plan.options).place(table, plan, in_use=True)
    count = affordable_queries(builds, plan, queries, budget)
    asked = standing_queries(client, table, searched, plan, count)
    covered, sample = choose_buckets(builds, plan, sum(map(len, asked.values())), budget)
    accepted = read_rows(client, "measured_recall", table=table, build_id=plan.build_id)
    targets = {(row["column"], row["kind"]): row["target"] for row in accepted}
    for column, column_queries in asked.items():
        some = covered if sample < 1 else None
        probe = Probe(client, table, searched, column, plan, some)
        if column_queries:
            probe.check_uses_index(column_queries[0].vector)
        truth = ground_truth(builds, plan, column, column_queries, covered)
        profile = read_profile(client, table, column, plan)
        for kind, found in probe.ask_all(column_queries, truth, 10, profile).items():
            if (column, kind) in targets:
                yield RecallNow(column, kind, fmean(found.recalls), targets[column, kind])
