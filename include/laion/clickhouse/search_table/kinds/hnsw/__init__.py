"""Kind `hnsw`: ClickHouse's `vector_similarity` index, a graph per partition and vector, in RAM.

The search table has the base table's columns in few partitions, each of one part, because each part
has graphs of its own and every graph is searched. It is built beside the one in use, as
`<table>_search_<build>`, and takes its place by `EXCHANGE TABLES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.cluster import drop_distributed, ensure_distributed
from laion.clickhouse.derived import CREATE_SETTINGS, derive, drop_derived, drop_however_large
from laion.clickhouse.identifiers import (
    quote_column,
    quote_identifier,
    quote_string,
    search_table,
)
from laion.clickhouse.schema import column_types, table_comment
from laion.clickhouse.search_table.in_use import is_own_search_table, plan_of
from laion.clickhouse.search_table.kinds.hnsw import graphs, sizing
from laion.clickhouse.search_table.kinds.kind import (
    Contents,
    Kind,
    OnProgress,
    SearchProfile,
    SizedPlan,
    indexable,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.clickhouse.statements import statement
from laion.errors import ClickHouseBusy
from laion.vectors import Dimensions

MAX_CANDIDATES = 10_000
"""Rows that a filtered index search looks at before it reads the whole table instead."""
MAX_MULTIPLIER = 1000
"""ClickHouse's limit of vector_search_index_fetch_multiplier."""
LEAST_LIMIT = 10
"""Rows that the gate asks for."""
WIDEN = 4
"""Times as many candidates when a filter has left too few."""


@dataclass(frozen=True)
class HnswProfile(SearchProfile):
    """How thoroughly graphs are searched.

    `ef` is hnsw_candidate_list_size_for_search. With a `multiplier`, so many candidates per result
    are fetched and ordered again by their stored vectors; 0 takes the index's own order.
    """

    ef: int = 256
    multiplier: int = 0

    def __str__(self) -> str:
        rescored = f", rescoring ×{self.multiplier}" if self.multiplier else ""
        return f"ef {self.ef}{rescored}"

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        return {
            "hnsw_candidate_list_size_for_search": self.ef,
            "vector_search_with_rescoring": int(self.multiplier > 0),
            "vector_search_index_fetch_multiplier": float(max(self.multiplier, 1)),
            "max_limit_for_vector_search_queries": MAX_CANDIDATES,
        }

    def widened(self, limit: int) -> HnswProfile | None:
        multiplier = max(self.multiplier, 1) * WIDEN
        if multiplier > MAX_MULTIPLIER or multiplier * limit > MAX_CANDIDATES:
            return None
        return HnswProfile(self.ef, multiplier)


class Hnsw(Kind):
    """A graph of each vector in each partition, which ClickHouse builds and searches in RAM."""

    copies_rows = True
    exact_settings: ClassVar[Mapping[str, Any]] = {"use_skip_indexes": 0}
    view_note = (
        "Filters apply to what the index finds: fewer than k rows may come where few pass. A user "
        "with readonly = 1 cannot have a view's settings, and searches with those of its profile."
    )
    ladder = (
        HnswProfile(64),
        HnswProfile(128),
        HnswProfile(256),
        HnswProfile(512),
        HnswProfile(128, multiplier=2),
        HnswProfile(256, multiplier=4),
        HnswProfile(256, multiplier=8),
        HnswProfile(512, multiplier=16),
        HnswProfile(512, multiplier=32),
        HnswProfile(1024, multiplier=64),
        HnswProfile(2048, multiplier=128),
    )

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        return sizing.plan_graphs(rows, dimensions, options, server)

    def describe(self, options: IndexOptions) -> str:
        own = options.parameters
        parts = (options.quantization, options.metric, f"M={own['m']}")
        return f"HNSW, {', '.join(parts)}, ef_construction={own['ef_construction']}"

    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        return search_table(table) if in_use else f"{search_table(table)}_{plan.build_id}"

    def table_of(self, place: str, vector: str) -> str:
        return place

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        shadow = self.place(table, plan, in_use=False)
        with typed_errors(f"create {shadow}"):
            client.command(
                statement(
                    "hnsw/create",
                    shadow=shadow,
                    literals={
                        **derive(client, table),
                        "shards_per_bucket": str(plan.shards_per_bucket),
                        "comment": quote_string(plan.as_comment(table)),
                    },
                ),
                settings=CREATE_SETTINGS,
            )
            for vector, dimension in plan.vectors.items():
                literals = {
                    "metric": quote_string(plan.options.metric),
                    "dimension": str(dimension),
                    "quantization": quote_string(plan.options.quantization),
                    **{name: str(value) for name, value in plan.options.parameters.items()},
                }
                names = {"shadow": shadow, "index": graphs.index_name(vector), "column": vector}
                client.command(statement("hnsw/add_index", literals=literals, **names))

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Copy the bucket's rows and merge them to one part."""
        shadow = self.place(table, plan, in_use=False)
        alter = f"ALTER TABLE {quote_identifier(shadow)}"
        graphs.stop_building(client, shadow, bucket)
        drop_however_large(client, f"{alter} DROP PARTITION {bucket}")
        first, last = plan.shards_of(bucket)
        literals = {"indexable": indexable(plan.vectors)}
        client.command(
            statement("hnsw/fill", shadow=shadow, table=table, literals=literals),
            parameters={"first": first, "last": last},
        )
        if graphs.count_parts(client, shadow, bucket).parts > 1:
            client.command(
                f"OPTIMIZE TABLE {quote_identifier(shadow)} PARTITION {bucket} FINAL",
                # A server without a free thread for the merge otherwise does nothing, in silence.
                settings={"optimize_throw_if_noop": 1},
            )
            if (parts := graphs.count_parts(client, shadow, bucket).parts) > 1:
                raise ClickHouseBusy(
                    f"ClickHouse left bucket {bucket} of {shadow} in {parts} parts"
                )

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        shadow = self.place(table, plan, in_use=False)
        graphs.build_graphs(client, shadow, tuple(plan.vectors), bucket, on_progress)

    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        parts = graphs.count_parts(client, place, bucket)
        return Contents(parts.rows, parts.index_bytes, parts.problem)

    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        here, there = (column_types(client, name) for name in (table, search_table(table)))
        return list(here.items()) == list(there.items())

    def can_take_over(self, client: Client, table: str, plan: BuildPlan) -> bool:
        """Whether both tables have the same indexes: an earlier release took over the owner's."""
        shadow, in_use = self.place(table, plan, in_use=False), search_table(table)

        def structure(name: str) -> tuple[object, ...]:
            found = client.query(statement("hnsw/definitions"), parameters={"table": name})
            return derive(client, name)["placement"], *found.result_rows

        with typed_errors(f"compare {shadow} with {in_use}"):
            return structure(in_use) == structure(shadow)

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        shadow = self.place(table, plan, in_use=False)
        with typed_errors(f"attach bucket {bucket} to {shadow}"):
            alter = f"ALTER TABLE {quote_identifier(shadow)}"
            in_use = quote_identifier(search_table(table))
            drop_however_large(client, f"{alter} DROP PARTITION {bucket}")
            client.command(f"{alter} ATTACH PARTITION {bucket} FROM {in_use}")

    def publish(self, client: Client, table: str, plan: BuildPlan) -> None:
        target, shadow = search_table(table), self.place(table, plan, in_use=False)
        present = table_comment(client, target)
        if present is None or plan_of(target, present).build_id != plan.build_id:
            client.command(statement("freeze", table=shadow))
            swap = "rename_table" if present is None else "exchange_tables"
            client.command(statement(swap, shadow=shadow, table=target))
        ensure_distributed(client, target)

    def retire(self, client: Client, table: str) -> None:
        if is_own_search_table(client, table):
            drop_distributed(client, search_table(table))
            drop_derived(client, search_table(table))

    def check_names(self, client: Client, table: str) -> None:
        name = search_table(table)
        if (comment := table_comment(client, name)) is not None:
            plan_of(name, comment)

    def read_profile(self, knobs: Mapping[str, Any]) -> HnswProfile:
        return HnswProfile(**knobs)

    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        literals = {
            "columns": question.nearest_columns,
            "metric": plan.options.metric,
            "vector": quote_column(question.vector),
            "target": question.target,
            "where": question.where,
            # Of rescored candidates there are so many per row: a search for one is as thorough.
            "limit": f"greatest({question.candidates}, {LEAST_LIMIT})",
        }
        return statement("hnsw/nearest", table=place, literals=literals)

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        """Whether the index is named: where its metric is another, the search is exact."""
        name = graphs.index_name(vector)
        return any(line.strip(" │├└─") == f"Name: {name}" for line in explained)

    def shown_from(self, table: str, place: str) -> str:
        return place

    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        target = search_table(table)
        literals = {"name": quote_string(target), "rows": str(rows)}
        return statement("hnsw/check", table=target, literals=literals)
