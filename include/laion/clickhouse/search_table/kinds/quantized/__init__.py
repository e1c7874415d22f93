"""Kind `quantized`: ClickHouse's codec `Quantized`, a code per row and vector, every one compared.

Nothing is trained, and nothing has to be in memory. Each vector has a narrow table of its own,
`<table>_search_<build>_<vector>`, with its codes, the vector in BFloat16, and what searches filter
by; the other columns come from the base table. A search is a view, `<table>_near(q = …)`, which
names its build's tables: replacing it is how a new build is put in place.

The codec is experimental (26.7 and later). What it is trusted with is the search alone, which the
gate measures: the base table does not know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.derived import CREATE_SETTINGS, derive, drop_however_large, read_columns
from laion.clickhouse.identifiers import (
    quote_identifier,
    quote_string,
    search_table,
    vector_suffix,
)
from laion.clickhouse.schema import column_types
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.kinds.kind import (
    Contents,
    Estimate,
    Kind,
    OnProgress,
    SearchProfile,
    SizedPlan,
    indexable,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts, read_codec_setting
from laion.clickhouse.statements import statement
from laion.columns import FILTERED, Column
from laion.errors import BadRequest, ClickHouseBusy, ServerTooOld
from laion.vectors import Dimensions

MULTIPLIER = 10
"""vector_search_index_fetch_multiplier: so many codes per row wanted make the shortlist."""
DEFAULT_METHOD = "turboquant"
CODE_BYTES = {"rabitq": 1 / 8, "turboquant": 1 / 4, "int8": 1.0}
"""Of one dimension. Beside it a code has 4 bytes."""
BUILD_CPU_S = 40e-6
"""Of a row of 512 dimensions, filled and merged; measured on 1,000,000 (docs/performance.md)."""
SEARCH_CPU_S = 0.15e-6
"""Of a row of 512 dimensions; measured on 1,000,000 (docs/performance.md)."""
ROW_BYTES = 16
"""Of id, shard and filter columns in a narrow table, about."""
NARROW = [column for column in FILTERED if column.filter and not column.filter.contains]
"""The columns that searches filter by before they rank."""
NOTES = (
    "The codec Quantized is experimental in ClickHouse. Searches depend on it, and are measured "
    "before they are put in place; the base table does not.",
    "Vectors are brought to length 1 in the search table: distances are those of the cosine.",
)


@dataclass(frozen=True)
class ShortlistProfile(SearchProfile):
    """How many rows are compared by their vectors: `rows` × MULTIPLIER, or as many as are asked."""

    rows: int = 100

    def __str__(self) -> str:
        return f"{MULTIPLIER * self.rows:,} of the codes compared by vector"

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        return {
            "vector_search_use_quantized_codes": 1,
            "vector_search_index_fetch_multiplier": float(MULTIPLIER),
        }

    def widened(self, limit: int) -> ShortlistProfile:
        """Filters apply before the shortlist is made: there are no more rows that pass."""
        return self


class Quantized(Kind):
    """A short code of each vector, of which a search compares every one."""

    exact_settings: ClassVar[Mapping[str, Any]] = {"vector_search_use_quantized_codes": 0}
    view_note = "Filters apply before anything is ranked."
    ladder = tuple(ShortlistProfile(rows) for rows in (10, 20, 50, 100, 200, 500, 1000))

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        offer = OFFERS["quantized"]
        if options.metric not in offer.metrics:
            raise BadRequest(
                f"index_metric: a search table of kind quantized is for cosineDistance, not for "
                f"{options.metric}; choose the index_kind hnsw for that"
            )
        if options.quantization not in ("auto", *offer.quantizations):
            raise BadRequest(
                f"index_quantization: {options.quantization!r} is none of auto, "
                f"{', '.join(offer.quantizations)}, which the index_kind quantized has"
            )
        if server.codec_setting is None:
            raise ServerTooOld(
                f"the server is ClickHouse {server.version}, which has no codec Quantized (26.7 "
                "and later have); choose the index_kind hnsw, or upgrade it"
            )
        method = options.quantization
        odd = [name for name, size in dimensions.items() if size % 8]
        if method == "auto":
            method = "int8" if odd else DEFAULT_METHOD
        if odd and method != "int8":
            raise BadRequest(
                f"index_quantization: {method} is for dimensions that 8 divides, not for "
                f"{dimensions[odd[0]]} of {odd[0]}; choose auto or int8"
            )
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

    def describe(self, options: IndexOptions) -> str:
        return f"codes, {options.quantization}, {options.metric}"

    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        return f"{search_table(table)}_{plan.build_id}"

    def table_of(self, place: str, vector: str) -> str:
        return f"{place}_{vector_suffix(vector)}"

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        place = self.place(table, plan, in_use=False)
        types = {column.name: column.type for column in read_columns(client, table)}
        filters = ", ".join(f"{quote_identifier(c.name)} {types[c.name]}" for c in NARROW)
        allowed = {name: 1 for name in (read_codec_setting(client),) if name}
        for vector, dimension in plan.vectors.items():
            narrow = self.table_of(place, vector)
            with typed_errors(f"create {narrow}"):
                literals = {
                    "filters": filters,
                    "method": quote_string(plan.options.quantization),
                    "dimension": str(dimension),
                    "shards_per_bucket": str(plan.shards_per_bucket),
                    "placement": derive(client, table)["placement"],
                    "comment": quote_string(plan.as_comment(table)),
                }
                text = statement(
                    "quantized/create", narrow=narrow, vector=vector, literals=literals
                )
                client.command(text, settings={**CREATE_SETTINGS, **allowed})

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Copy the bucket's rows and merge them: one part reads quicker than many."""
        first, last = plan.shards_of(bucket)
        shared = ["id", "shard", *(quote_identifier(column.name) for column in NARROW)]
        for vector in plan.vectors:
            narrow = self.table_of(self.place(table, plan, in_use=False), vector)
            own = quote_identifier(vector)
            drop_however_large(
                client, f"ALTER TABLE {quote_identifier(narrow)} DROP PARTITION {bucket}"
            )
            literals = {
                "columns": ", ".join([*shared, own]),
                "values": ", ".join([*shared, f"L2Normalize({own}::Array(Float32))"]),
                "indexable": indexable(plan.vectors),
            }
            client.command(
                statement("quantized/fill", narrow=narrow, table=table, literals=literals),
                parameters={"first": first, "last": last},
            )
            if self._parts(client, narrow, bucket)["parts"] > 1:
                client.command(
                    f"OPTIMIZE TABLE {quote_identifier(narrow)} PARTITION {bucket} FINAL",
                    settings={"optimize_throw_if_noop": 1},
                )
            if (parts := self._parts(client, narrow, bucket)["parts"]) > 1:
                raise ClickHouseBusy(
                    f"ClickHouse left bucket {bucket} of {narrow} in {parts} parts"
                )

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        """Nothing to do: the codes are written with the rows."""

    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        parts = [
            self._parts(client, self.table_of(place, vector), bucket) for vector in plan.vectors
        ]
        problem = ""
        if any(part["parts"] > 1 for part in parts):
            problem = f"{max(part['parts'] for part in parts)} parts"
        elif len({part["rows"] for part in parts}) > 1:
            problem = "of unlike vectors"
        return Contents(
            rows=min(part["rows"] for part in parts),
            index_bytes=sum(part["bytes"] for part in parts),
            problem=problem,
        )

    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        """Whether the columns that are filtered by are still of the same types."""
        base, place = column_types(client, table), self.place(table, old, in_use=True)
        narrow = column_types(client, self.table_of(place, next(iter(old.vectors))))
        return all(base[column.name] == narrow.get(column.name) for column in NARROW)

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        for vector in plan.vectors:
            new, before = (
                quote_identifier(self.table_of(self.place(table, one, in_use=False), vector))
                for one in (plan, old)
            )
            with typed_errors(f"attach bucket {bucket} to {new}"):
                drop_however_large(client, f"ALTER TABLE {new} DROP PARTITION {bucket}")
                client.command(f"ALTER TABLE {new} ATTACH PARTITION {bucket} FROM {before}")

    def publish(self, client: Client, table: str, plan: BuildPlan) -> None:
        for narrow in self.tables(table, plan, in_use=True):
            client.command(statement("freeze", table=narrow))

    def read_profile(self, knobs: Mapping[str, int]) -> ShortlistProfile:
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

    def condition(self, table: str, column: Column, test: str) -> str:
        """Ask the base table for what the narrow tables do not have."""
        if column in NARROW:
            return test
        return f"id IN (SELECT id FROM {quote_identifier(table)} WHERE {test})"

    def shown_from(self, table: str, place: str) -> str:
        return table

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        return any("quantized shortlist" in line for line in explained)

    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        names = sorted(self.tables(table, plan, in_use=True))
        counts = [f"(SELECT count() FROM {quote_identifier(name)}) = {rows}" for name in names]
        literals = {
            "has_all_rows": " AND ".join(counts),
            "names": ", ".join(map(quote_string, names)),
        }
        return statement("quantized/check", literals=literals)

    @staticmethod
    def _parts(client: Client, narrow: str, bucket: int) -> dict[str, int]:
        with typed_errors(f"count the parts of {narrow}"):
            found = client.query(
                statement("quantized/parts", narrow=narrow),
                parameters={"table": narrow, "bucket": bucket},
            )
        (row,) = found.named_results()
        return dict(row)
