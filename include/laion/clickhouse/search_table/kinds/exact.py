"""Kind `exact`: no index; views that compare every vector of the base table.

For tables so small that an index saves nothing. There is nothing to build, and nothing that could
be stale: what is searched is the base table as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import near_view, quote_column, quote_string
from laion.clickhouse.search_table.kinds.kind import (
    Contents,
    Estimate,
    Kind,
    OnProgress,
    SearchProfile,
    SizedPlan,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.clickhouse.statements import statement
from laion.errors import BadRequest
from laion.vectors import Dimensions

SEARCH_CPU_S = 0.75e-6
"""Of a row of 512 dimensions; measured on 1,000,000 (docs/performance.md)."""


@dataclass(frozen=True)
class EveryRow(SearchProfile):
    """Every row is compared."""

    def __str__(self) -> str:
        return "every row"

    def to_json(self) -> dict[str, float]:
        return {}

    def settings(self) -> dict[str, Any]:
        # The owner of the base table may have given it an index of vectors.
        return dict(Exact.exact_settings)

    def widened(self, limit: int) -> EveryRow:
        """There are no more rows."""
        return self


class Exact(Kind):
    """The base table itself, every vector of which a search compares."""

    ladder = (EveryRow(),)
    is_live = True
    exact_settings: ClassVar[Mapping[str, Any]] = {"use_skip_indexes": 0}
    view_note = "Every row is compared; filters apply before anything is ranked."

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        if options.quantization != "auto":
            raise BadRequest(
                f"index_quantization: the index_kind exact keeps no vectors of its own, and none "
                f"as {options.quantization}",
                advice="choose auto",
            )
        search_cpu_s = rows * SEARCH_CPU_S * max(dimensions.values()) / 512
        needs = Estimate(memory_bytes=0, disk_bytes=0, build_cpu_s=0.0, search_cpu_s=search_cpu_s)
        return SizedPlan(replace(options, parameters={}), needs, ())

    def describe(self, options: IndexOptions) -> str:
        return f"none, every row is compared, {options.metric}"

    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        return table

    def table_of(self, place: str, vector: str) -> str:
        return place

    def tables(self, table: str, plan: BuildPlan, *, in_use: bool) -> set[str]:
        return set()

    def in_bucket(self, plan: BuildPlan, bucket: int) -> str:
        first, last = plan.shards_of(bucket)
        return f"shard BETWEEN {first} AND {last}"

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        """Nothing to do."""

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Nothing to do."""

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        """Nothing to do."""

    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        where = self.in_bucket(plan, bucket)
        rows = client.query(statement("exact/count", table=place, literals={"where": where}))
        return Contents(rows=rows.result_rows[0][0], index_bytes=0)

    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        return True

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        """Nothing to do."""

    def shown_from(self, table: str, place: str) -> str:
        return table

    def read_profile(self, knobs: object) -> EveryRow:
        return EveryRow()

    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        vector, metric = quote_column(question.vector), plan.options.metric
        # By the cosine, the distance to a vector without a direction is not finite.
        usable = "" if metric == "cosineDistance" else f" AND L2Norm({vector}) > 0"
        literals = {
            "columns": question.nearest_columns,
            "metric": metric,
            "vector": vector,
            "target": question.target,
            "conditions": usable
            + "".join(f" AND {condition}" for condition in question.conditions),
            "limit": question.candidates,
        }
        return statement("exact/nearest", table=table, literals=literals)

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        """There is none that could fail to be."""
        return True

    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        literals = {"view": quote_string(near_view(table))}
        return statement("exact/check", table=table, literals=literals)
