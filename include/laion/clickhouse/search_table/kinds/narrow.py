"""What kinds with narrow tables share: rows coded by ClickHouse's codec `Quantized`.

Each vector has a narrow table of its own, `<table>_search_<build>_<vector>`, with its codes, the
vector in BFloat16, and what searches filter by; the other columns come from the base table. A
search is a view, `<table>_near(q = …)`, which names its build's tables: replacing it is how a new
build is put in place.

The codec is experimental (26.7 and later). What it is trusted with is the search alone, which the
gate measures: the base table does not know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from laion.clickhouse.search_table.kinds.kind import Contents, Kind
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts, read_codec_setting
from laion.clickhouse.statements import statement
from laion.columns import Column
from laion.errors import BadRequest, ClickHouseBusy, ServerTooOld
from laion.vectors import Dimensions

MULTIPLIER = 10
"""vector_search_index_fetch_multiplier: so many codes per row wanted make the shortlist."""
SHORTLIST_SETTINGS: Mapping[str, Any] = {
    "vector_search_use_quantized_codes": 1,
    "vector_search_index_fetch_multiplier": float(MULTIPLIER),
}
DEFAULT_METHOD = "turboquant"
CODE_BYTES = {"rabitq": 1 / 8, "turboquant": 1 / 4, "int8": 1.0}
"""Of one dimension. Beside it a code has 4 bytes."""
NOTES = (
    "The codec Quantized is experimental in ClickHouse. Searches depend on it, and are measured "
    "before they are put in place; the base table does not.",
    "Vectors are brought to length 1 in the search table: distances are those of the cosine.",
)


class NarrowKind(Kind):
    """A kind whose rows are in one narrow table per vector; it is called `name` in OFFERS."""

    name: ClassVar[str]
    filtered: ClassVar[Sequence[Column]]
    """The columns that narrow tables have; the others are asked of the base table."""
    exact_settings: ClassVar[Mapping[str, Any]] = {"vector_search_use_quantized_codes": 0}

    def choose_method(
        self, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> str:
        """Return the method of the codec. Raises BadRequest, ServerTooOld."""
        offer = OFFERS[self.name]
        if options.metric not in offer.metrics:
            raise BadRequest(
                f"index_metric: a search table of kind {self.name} is for cosineDistance, not for "
                f"{options.metric}",
                advice="choose the index_kind hnsw for that",
            )
        if options.quantization not in ("auto", *offer.quantizations):
            raise BadRequest(
                f"index_quantization: {options.quantization!r} is none of auto, "
                f"{', '.join(offer.quantizations)}, which the index_kind {self.name} has"
            )
        if server.codec_setting is None:
            raise ServerTooOld(
                f"the server is ClickHouse {server.version}, which has no codec Quantized (26.7 "
                "and later have)",
                advice="choose the index_kind hnsw, or upgrade it",
            )
        method = options.quantization
        odd = [name for name, size in dimensions.items() if size % 8]
        if method == "auto":
            method = "int8" if odd else DEFAULT_METHOD
        if odd and method != "int8":
            raise BadRequest(
                f"index_quantization: {method} is for dimensions that 8 divides, not for "
                f"{dimensions[odd[0]]} of {odd[0]}",
                advice="choose auto or int8",
            )
        return method

    def describe(self, options: IndexOptions) -> str:
        return f"codes, {options.quantization}, {options.metric}"

    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        return f"{search_table(table)}_{plan.build_id}"

    def table_of(self, place: str, vector: str) -> str:
        return f"{place}_{vector_suffix(vector)}"

    def narrow_tables(self, table: str, plan: BuildPlan) -> dict[str, str]:
        """Return the narrow tables of a build, by vector."""
        place = self.place(table, plan, in_use=True)
        return {vector: self.table_of(place, vector) for vector in plan.vectors}

    def make(
        self, client: Client, table: str, plan: BuildPlan, name: str, text: str, **literals: str
    ) -> None:
        """Create a table of a build by the statement `text`, unless it is there.

        The statement can use `$filters` (the filtered columns, as the base table has them),
        `$shards_per_bucket`, `$placement` and `$comment`, beside `literals`.
        """
        types = {column.name: column.type for column in read_columns(client, table)}
        codec = read_codec_setting(client)
        common = {
            "filters": ", ".join(
                f"{quote_identifier(column.name)} {types[column.name]}" for column in self.filtered
            ),
            "shards_per_bucket": str(plan.shards_per_bucket),
            "placement": derive(client, table)["placement"],
            "comment": quote_string(plan.as_comment(table)),
        }
        with typed_errors(f"create {name}"):
            client.command(
                statement(text, name=name, literals={**common, **literals}),
                settings={**CREATE_SETTINGS, **({codec: 1} if codec else {})},
            )

    def merge(self, client: Client, narrow: str, bucket: int) -> None:
        """Merge a filled bucket: one part reads quicker than many. Raises ClickHouseBusy."""
        if self.parts(client, narrow, bucket)["parts"] > 1:
            client.command(
                f"OPTIMIZE TABLE {quote_identifier(narrow)} PARTITION {bucket} FINAL",
                settings={"optimize_throw_if_noop": 1},
            )
        if (parts := self.parts(client, narrow, bucket)["parts"]) > 1:
            raise ClickHouseBusy(f"ClickHouse left bucket {bucket} of {narrow} in {parts} parts")

    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        parts = [
            self.parts(client, self.table_of(place, vector), bucket) for vector in plan.vectors
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
        base, names = column_types(client, table), self.narrow_tables(table, old)
        narrow = column_types(client, next(iter(names.values())))
        return all(base[column.name] == narrow.get(column.name) for column in self.filtered)

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        before = self.narrow_tables(table, old)
        for vector, narrow in self.narrow_tables(table, plan).items():
            attach(client, narrow, before[vector], bucket)

    def publish(self, client: Client, table: str, plan: BuildPlan) -> None:
        for narrow in self.narrow_tables(table, plan).values():
            client.command(statement("freeze", table=narrow))

    def condition(self, table: str, column: Column, test: str) -> str:
        """Ask the base table for what the narrow tables do not have."""
        if column in self.filtered:
            return test
        return f"id IN (SELECT id FROM {quote_identifier(table)} WHERE {test})"

    def shown_from(self, table: str, place: str) -> str:
        return table

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        return any("quantized shortlist" in line for line in explained)

    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        names = sorted(self.narrow_tables(table, plan).values())
        counts = [f"(SELECT count() FROM {quote_identifier(name)}) = {rows}" for name in names]
        literals = {
            "has_all_rows": " AND ".join(counts),
            "names": ", ".join(map(quote_string, names)),
        }
        return statement("narrow/check", literals=literals)

    @staticmethod
    def parts(client: Client, narrow: str, bucket: int) -> dict[str, int]:
        """Return `parts`, `rows` and `bytes` of a bucket of a narrow table."""
        with typed_errors(f"count the parts of {narrow}"):
            found = client.query(
                statement("narrow/parts", narrow=narrow),
                parameters={"table": narrow, "bucket": bucket},
            )
        (row,) = found.named_results()
        return dict(row)


def drop_bucket(client: Client, name: str, bucket: int) -> None:
    """Empty a partition of a table of a build."""
    drop_however_large(client, f"ALTER TABLE {quote_identifier(name)} DROP PARTITION {bucket}")


def attach(client: Client, name: str, before: str, bucket: int) -> None:
    """Put a partition of another build's table into the one of a build, in place of its own."""
    with typed_errors(f"attach bucket {bucket} to {name}"):
        drop_bucket(client, name, bucket)
        client.command(
            f"ALTER TABLE {quote_identifier(name)} ATTACH PARTITION {bucket} "
            f"FROM {quote_identifier(before)}"
        )
