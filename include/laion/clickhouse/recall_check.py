"""Whether the search table in use still finds what it was accepted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from laion.clickhouse.builds import Builds
from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import search_table
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.recall import Probe, ask, choose_buckets, ground_truth
from laion.clickhouse.recall_queries import standing_queries
from laion.clickhouse.search import read_profile
from laion.clickhouse.statements import statement
from laion.clickhouse.vector_index import read_plan


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

    `queries` and `budget` are those of `measure_recall`. Returns [] when there is no search table.
    Raises TableMismatch, IndexBuildFailed when a search does not use the index, ClickHouseError.
    """
    searched = search_table(table)
    if read_plan(client, searched) is None:
        return []
    with typed_errors(f"measure the recall of {searched}"):
        return list(_recheck(client, table, queries, budget))


def _recheck(client: Client, table: str, queries: int, budget: int) -> Iterator[RecallNow]:
    searched, builds = search_table(table), Builds(client, table, TaskOrigin("", ""))
    plan = read_plan(client, searched)
    assert plan is not None
    asked = standing_queries(client, table, searched, plan, queries)
    covered, sample = choose_buckets(builds, plan, sum(map(len, asked.values())), budget)
    accepted = client.query(
        statement("measured_recall"), parameters={"table": table, "build_id": plan.build_id}
    ).result_rows
    targets = {(column, kind): measured[-1] for column, kind, measured in accepted}
    for column, column_queries in asked.items():
        some = covered if sample < 1 else None
        probe = Probe(client, searched, column, plan.options.metric, some)
        if column_queries:
            probe.check_uses_index(column_queries[0].vector)
        truth = ground_truth(builds, plan, searched, column, column_queries, covered)
        profile, _ = read_profile(client, table, column)
        for kind, recalls in ask(probe, column_queries, truth, 10, profile)[0].items():
            if (column, kind) in targets:
                yield RecallNow(column, kind, fmean(recalls), targets[column, kind])
