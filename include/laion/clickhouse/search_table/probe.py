"""Asks a search table that may still be under construction, for what its recall is measured by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from clickhouse_connect.driver.query import QueryResult

from laion.clickhouse.client import Client
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import Kind, SearchProfile
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.search_table.search import as_parameter
from laion.clickhouse.search_table.standing_queries import StandingQuery
from laion.clickhouse.search_table.truth import Truth, recall_of
from laion.clickhouse.statements import statement
from laion.errors import IndexBuildFailed


@dataclass(frozen=True)
class Answer:
    """The ids that a search found, nearest first, its seconds for the client, and bytes read."""

    ids: list[int]
    seconds: float
    read_bytes: int


@dataclass
class Asked:
    """What queries of one kind found: recall, seconds and bytes read of each."""

    recalls: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    read_bytes: list[int] = field(default_factory=list)


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

    def ask(self, vector: Sequence[float], limit: int, profile: SearchProfile | None) -> Answer:
        """Ask for the nearest rows; exactly without a profile."""
        began = time.perf_counter()
        found = self._ask("", vector, limit, profile)
        seconds = time.perf_counter() - began
        read_bytes = int(found.summary.get("read_bytes", 0))
        return Answer([row[0] for row in found.result_rows], seconds, read_bytes)

    def check_uses_index(self, vector: Sequence[float]) -> None:
        """Raise IndexBuildFailed unless the server answers by the column's index.

        It does not where the index is of another metric; then the search is exact, finds
        everything, and reads every row.
        """
        explained = self._ask("EXPLAIN indexes = 1 ", vector, 10, self.kind.ladder[0])
        lines = [row[0] for row in explained.result_rows]
        if not self.kind.is_used(lines, self.column):
            raise IndexBuildFailed(
                f"{self.place}: a search of {self.column} by {self.plan.options.metric} does not "
                "use the index, but reads every row; the search table in use stays. The server's "
                "plan is:\n" + "\n".join(lines)
            )

    def _ask(
        self, explain: str, vector: Sequence[float], limit: int, profile: SearchProfile | None
    ) -> QueryResult:
        some = [self.kind.in_bucket(self.plan, bucket) for bucket in self.buckets or ()]
        question = Question(
            vector=self.column,
            target="{target:Array(Float32)}",
            within=[f"({' OR '.join(some)})"] if some else [],
        )
        return self.client.query(
            explain + self.kind.search(self.base, self.place, self.plan, question, profile),
            parameters={"target": as_parameter(vector), "limit": limit},
        )

    def distances(self, vector: Sequence[float], ids: Sequence[int]) -> dict[int, float]:
        """Return the exact distances of some rows, by the base table's vectors."""
        result = self.client.query(
            statement(
                "exact_distances",
                table=self.base,
                column=self.column,
                literals={"metric": self.plan.options.metric},
            ),
            parameters={"target": as_parameter(vector), "ids": ids},
        )
        return {row[0]: row[1] for row in result.result_rows}

    def ask_all(
        self,
        queries: Sequence[StandingQuery],
        truth: dict[int, Truth],
        k: int,
        profile: SearchProfile,
    ) -> dict[str, Asked]:
        """Ask every query of the index; return the recall@k of each, by kind of query."""
        asked: dict[str, Asked] = {}
        for query in queries:
            answer = self.ask(query.vector, k + len(query.excluded), profile)
            found = [row_id for row_id in answer.ids if row_id not in query.excluded]

            def look_up(ids: list[int], query: StandingQuery = query) -> dict[int, float]:
                return self.distances(query.vector, ids)

            of_kind = asked.setdefault(query.kind, Asked())
            of_kind.recalls.append(recall_of(found, truth[query.number], k, look_up))
            of_kind.seconds.append(answer.seconds)
            of_kind.read_bytes.append(answer.read_bytes)
        return asked
