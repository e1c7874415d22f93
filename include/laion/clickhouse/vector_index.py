"""The search table: the base table's rows in few partitions, with a vector index on each vector.

It is built beside the one in use and takes its place in one step, so searches never see half.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, quote_string, search_table
from laion.clickhouse.schema import table_comment
from laion.clickhouse.statements import statement
from laion.errors import BadRequest, IndexBuildFailed, TableMismatch

log = logging.getLogger(__name__)

METRICS = ("cosineDistance", "L2Distance")
QUANTIZATIONS = ("f32", "f16", "bf16", "i8", "b1")
INDEXES = ("image_index", "text_index")

PARTITIONS = (
    "SELECT {} FROM system.parts "
    "WHERE active AND `database` = currentDatabase() AND `table` = {{t:String}}"
)


@dataclass(frozen=True)
class IndexOptions:
    """How the HNSW index is built; `m` is usearch's connectivity."""

    metric: str = "cosineDistance"
    quantization: str = "bf16"
    m: int = 32
    ef_construction: int = 128
    buckets: int = 8

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadRequest(f"index_metric: {self.metric!r} is none of {', '.join(METRICS)}")
        if self.quantization not in QUANTIZATIONS:
            raise BadRequest(
                f"index_quantization: {self.quantization!r} is none of {', '.join(QUANTIZATIONS)}"
            )


@dataclass(frozen=True)
class SearchTable:
    """A search table that was built: its rows, and the base table's rows it leaves out."""

    name: str
    rows: int
    left_out: int
    buckets: int


def build_search_table(
    client: Client, table: str, dimension: int, build_id: str, options: IndexOptions | None = None
) -> SearchTable:
    """Build the search table of `table` and put it in the place of the one in use.

    `build_id` makes the name of the table under construction unique. When anything fails, the
    search table in use stays as it is. Raises IndexBuildFailed, ClickHouseError.
    """
    chosen = options or IndexOptions()
    target, shadow = search_table(table), f"{search_table(table)}_{build_id}"
    quoted = f"{quote_identifier(shadow)} {{}} {quote_identifier(target)}"
    _check_target(client, table, target)
    try:
        rows, shards_per_bucket = _build(client, table, shadow, dimension, chosen)
        with typed_errors(f"put {target} in place"):
            base_rows = _number(client, f"SELECT count() FROM {quote_identifier(table)}")
            if table_comment(client, target) is not None:
                client.command(f"EXCHANGE TABLES {quoted.format('AND')}")
            else:
                client.command(f"RENAME TABLE {quoted.format('TO')}")
            buckets = _number(client, PARTITIONS.format("uniqExact(partition)"), t=target)
    finally:
        with typed_errors(f"drop {shadow}"):
            client.command(f"DROP TABLE IF EXISTS {quote_identifier(shadow)} SYNC")
    log.info("%s: %d rows in %d buckets of %d shards", target, rows, buckets, shards_per_bucket)
    return SearchTable(name=target, rows=rows, left_out=base_rows - rows, buckets=buckets)


def _check_target(client: Client, table: str, target: str) -> None:
    """Refuse to replace a table that is not the search table of `table`."""
    comment = table_comment(client, target)
    try:
        search_of = None if comment is None else json.loads(comment)["laion"]["search_of"]
    except (ValueError, KeyError, TypeError):
        search_of = ""
    if search_of not in (None, table):
        raise TableMismatch(
            f"table {target!r} exists and is not the search table of {table!r}; it is left alone. "
            "Rename it, or choose another name with the param `table`."
        )


def _build(
    client: Client, table: str, shadow: str, dimension: int, options: IndexOptions
) -> tuple[int, int]:
    """Create, fill, merge and index `shadow`; return its rows and the shards per bucket."""
    with typed_errors(f"build {shadow}"):
        shards = _number(client, f"SELECT max(shard) + 1 FROM {quote_identifier(table)}")
        per_bucket = max(1, math.ceil(shards / options.buckets))
        comment = {
            "laion": {"search_of": table, "dimension": dimension, "built_with": options.__dict__}
        }
        table_options = {
            "shards_per_bucket": str(per_bucket),
            "comment": quote_string(json.dumps(comment)),
        }
        index_options = {
            "metric": quote_string(options.metric),
            "dimension": str(dimension),
            "quantization": quote_string(options.quantization),
            "m": str(options.m),
            "ef_construction": str(options.ef_construction),
        }
        client.command(
            statement("create_search", shadow=shadow, table=table, literals=table_options)
        )
        client.command(statement("add_vector_indexes", shadow=shadow, literals=index_options))
        client.command(statement("fill_search", shadow=shadow, table=table))
        partitions = client.query(
            PARTITIONS.format("DISTINCT toUInt32(partition) AS p") + " ORDER BY p",
            parameters={"t": shadow},
        ).result_rows
        for (partition,) in partitions:
            # One part per bucket: every part has a graph of its own, and each is searched.
            client.command(f"OPTIMIZE TABLE {quote_identifier(shadow)} PARTITION {partition} FINAL")
            builds = (f"MATERIALIZE INDEX {i} IN PARTITION {partition}" for i in INDEXES)
            client.command(
                f"ALTER TABLE {quote_identifier(shadow)} {', '.join(builds)}",
                settings={"mutations_sync": 2},
            )
        rows = _number(client, f"SELECT count() FROM {quote_identifier(shadow)}")
        unindexed = PARTITIONS.format("count()") + " AND secondary_indices_uncompressed_bytes = 0"
        if count := _number(client, unindexed, t=shadow):
            raise IndexBuildFailed(f"{shadow}: {count} parts have no vector index after the build")
    return rows, per_bucket


def _number(client: Client, query: str, **parameters: str) -> int:
    return int(client.query(query, parameters=parameters).result_rows[0][0])
