"""Kind `quantized`: a code per row and vector, every one of which a search compares.

Nothing is trained, and nothing has to be in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import quote_identifier, quote_string
from laion.clickhouse.search_table.kinds.kind import (
    Estimate,
    OnProgress,
    SearchProfile,
    SizedPlan,
    indexable,
)
from laion.clickhouse.search_table.kinds.narrow import (
    CODE_BYTES,
    MULTIPLIER,
    NOTES,
    SHORTLIST_SETTINGS,
    NarrowKind,
    drop_bucket,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.clickhouse.statements import statement
from laion.columns import FILTERED
from laion.vectors import Dimensions

BUILD_CPU_S = 40e-6
"""Of a row of 512 dimensions, filled and merged; measured on 1,000,000 (docs/performance.md)."""
SEARCH_CPU_S = 0.15e-6
"""Of a row of 512 dimensions; measured on 1,000,000 (docs/performance.md)."""
ROW_BYTES = 16
"""Of id, shard and filter columns in a narrow table, about."""


@dataclass(frozen=True)
class ShortlistProfile(SearchProfile):
    """How many rows are compared by their vectors: `rows` × MULTIPLIER, or as many as are asked."""

    rows: int = 100

    def __str__(self) -> str:
        return f"{MULTIPLIER * self.rows:,} of the codes compared by vector"

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        return dict(SHORTLIST_SETTINGS)

    def widened(self, limit: int) -> ShortlistProfile:
        """Filters apply before the shortlist is made: there are no more rows that pass."""
        return self


class Quantized(NarrowKind):
    """A short code of each vector, of which a search compares every one."""

    name = "quantized"
    filtered = tuple(column for column in FILTERED if column.filter and not column.filter.contains)
    view_note = "Filters apply before anything is ranked."
    ladder = tuple(ShortlistProfile(rows) for rows in (10, 20, 50, 100, 200, 500, 1000))

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        method = self.choose_method(dimensions, options, server)
        codes = sum(size * CODE_BYTES[method] + 4 for size in dimensions.values())
        disk = rows * (codes + sum(2 * size + ROW_BYTES for size in dimensions.values()))
        cpu_s = rows * BUILD_CPU_S * sum(dimensions.values()) / 512
        search_cpu_s = rows * SEARCH_CPU_S * max(dimensions.values()) / 512
        return SizedPlan(
            replace(options, quantization=method, parameters={}),
            Estimate(
                memory_bytes=0, disk_bytes=int(disk), build_cpu_s=cpu_s, search_cpu_s=search_cpu_s
            ),
            NOTES,
        )

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        for vector, name in self.narrow_tables(table, plan).items():
            literals = {
                "vector": quote_identifier(vector),
                "method": quote_string(plan.options.quantization),
                "dimension": str(plan.vectors[vector]),
            }
            self.make(client, table, plan, name, "quantized/create", **literals)

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Copy the bucket's rows and merge them."""
        first, last = plan.shards_of(bucket)
        shared = ["id", "shard", *(quote_identifier(column.name) for column in self.filtered)]
        for vector, narrow in self.narrow_tables(table, plan).items():
            own = quote_identifier(vector)
            drop_bucket(client, narrow, bucket)
            literals = {
                "columns": ", ".join([*shared, own]),
                "values": ", ".join([*shared, f"L2Normalize({own}::Array(Float32))"]),
                "indexable": indexable(plan.vectors),
            }
            client.command(
                statement("quantized/fill", narrow=narrow, table=table, literals=literals),
                parameters={"first": first, "last": last},
            )
            self.merge(client, narrow, bucket)

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        """Nothing to do: the codes are written with the rows."""

    def read_profile(self, knobs: Mapping[str, Any]) -> ShortlistProfile:
        return ShortlistProfile(**knobs)

    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        shortlist = question.candidates
        if isinstance(profile, ShortlistProfile):
            shortlist = f"greatest({shortlist}, {profile.rows})"
        literals = {
            "columns": question.nearest_columns,
            "target": question.target,
            "where": question.where,
            "limit": shortlist,
        }
        names = {"narrow": self.table_of(place, question.vector), "vector": question.vector}
        return statement("quantized/nearest", literals=literals, **names)
