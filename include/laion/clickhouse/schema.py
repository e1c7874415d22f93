"""The tables: created when absent, refused when they belong to something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import laion
from laion.clickhouse.client import Client, insert_rows, typed_errors
from laion.clickhouse.cluster import check_cluster, ensure_distributed
from laion.clickhouse.identifiers import quote_identifier, quote_string
from laion.clickhouse.statements import statement
from laion.columns import COLUMNS, Column
from laion.errors import SchemaTooNew, TableMismatch
from laion.vectors import Dimensions, clip_vectors

ELEMENT_TYPES = ("Float32", "BFloat16")
"""What a base table may hold its vectors as; BFloat16 is half the bytes and 8 bits of precision."""
FORMAT_VERSION = max(column.since for column in COLUMNS)
"""Version of the base table's structure, recorded in the table's comment."""
BEFORE_VECTORS = ("url", "caption", "NSFW", "similarity")
"""The columns of ClickHouse's tutorial stand in its order."""


@dataclass(frozen=True)
class TableIdentity:
    """What a base table is for: one dataset, its vectors, one structure."""

    dataset: str
    vectors: Dimensions
    format_version: int = FORMAT_VERSION

    @property
    def shape(self) -> str:
        """The vectors in words."""
        return " and ".join(f"{name} of {size} dimensions" for name, size in self.vectors.items())

    def as_comment(self) -> str:
        facts = {
            "dataset": self.dataset,
            "vectors": self.vectors,
            "format": self.format_version,
        }
        return json.dumps({"laion": facts})


def ensure_base_table(
    client: Client,
    table: str,
    identity: TableIdentity,
    element_type: str = ELEMENT_TYPES[0],
) -> None:
    """Create a base table, or check that the one that exists is for the same data.

    An existing table keeps its rows and its element type. One that an earlier release made gets
    the columns that came later, without values. Raises TableMismatch.
    """
    comment = quote_string(identity.as_comment())
    with typed_errors(f"create table {table}"):
        literals = {
            "comment": comment,
            "columns": _definitions(tuple(identity.vectors), element_type),
        }
        client.command(statement("create_base", table=table, literals=literals))
    ensure_distributed(client, table)
    existing = read_identity(client, table)
    if replace(existing, format_version=identity.format_version) != identity or (
        existing.format_version > identity.format_version
    ):
        raise TableMismatch(
            f"table {table!r} holds dataset {existing.dataset!r} with {existing.shape} "
            f"(format {existing.format_version}); this run is for {identity.dataset!r} with "
            f"{identity.shape} (format {identity.format_version}). Choose another name with the "
            "param `table`."
        )
    _add_later_columns(client, table, existing.format_version)


def row_hash(vectors: Sequence[str], columns: Sequence[Column] = COLUMNS) -> str:
    """Return the SQL expression of a row's hash, UInt64, over all columns of a base table.

    A column that came after the table's first format counts where it has a value, so that rows
    have the hash by which they were published before it came.
    """
    later = [column for column in columns if column.since > 1]
    first = [name for name in _names(vectors, columns) if name not in {c.name for c in later}]
    terms = [f"cityHash64({', '.join(map(quote_identifier, first))})"]
    for column in later:
        name = quote_identifier(column.name)
        hashed = f"cityHash64({quote_string(column.name)}, {name})"
        terms.append(f"if({column.type.is_missing.format(name)}, 0, {hashed})")
    return " + ".join(terms)


def _names(vectors: Sequence[str], columns: Sequence[Column] = COLUMNS) -> list[str]:
    """Return the names of a base table's columns in their order."""
    others = [column.name for column in columns if column.name not in BEFORE_VECTORS]
    return ["id", *BEFORE_VECTORS, *vectors, "shard", *others]


def _definitions(vectors: Sequence[str], element_type: str) -> str:
    """Return the columns of a new base table as CREATE TABLE has them."""
    types = {
        "id": "Int64",
        "shard": "UInt16",
        **{column.name: column.type.clickhouse for column in COLUMNS},
        # Uncompressed: LZ4 would save 5 % of the disk and cost a scan a third more CPU.
        **dict.fromkeys(vectors, f"Array({element_type}) CODEC(NONE)"),
    }
    return ",\n    ".join(f"{quote_identifier(name)} {types[name]}" for name in _names(vectors))


def _add_later_columns(client: Client, table: str, format_version: int) -> None:
    for column in COLUMNS:
        if column.since > format_version:
            missing = column.type.missing
            literals = {
                "type": column.type.clickhouse,
                "missing": quote_string(missing) if isinstance(missing, str) else str(missing),
            }
            names = {"table": table, "column": column.name}
            with typed_errors(f"add column {column.name} to {table}"):
                client.command(statement("add_column", literals=literals, **names))


def read_identity(client: Client, table: str) -> TableIdentity:
    """Return what a base table is for. Raises TableMismatch when there is none of ours."""
    comment = table_comment(client, table)
    if comment is None:
        raise TableMismatch(f"there is no table {table!r}; load at least one shard first")
    try:
        facts = json.loads(comment)["laion"]
        vectors = facts.get("vectors") or _vectors_of(client, table, int(facts["dimension"]))
        return TableIdentity(facts["dataset"], vectors, int(facts["format"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableMismatch(
            f"table {table!r} exists and was not made by this package; it is left alone. Choose "
            "another name with the param `table`."
        ) from error


def _vectors_of(client: Client, table: str, dimension: int) -> Dimensions:
    """Return the vectors of a table of an earlier release, whose comment does not name them."""
    known = {vector.name for vector in clip_vectors()}
    return {name: dimension for name in column_types(client, table) if name in known}


def column_types(client: Client, table: str) -> dict[str, str]:
    """Return the type of every column of a table in the client's database, in their order."""
    with typed_errors(f"read the columns of {table}"):
        found = client.query(
            "SELECT name, type FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
            parameters={"table": table},
        )
    return {row[0]: row[1] for row in found.result_rows}


def table_comment(client: Client, table: str) -> str | None:
    """Return the comment of a table in the client's database, or None when there is no table."""
    with typed_errors(f"look at table {table}"):
        found = client.query(
            "SELECT comment FROM system.tables "
            "WHERE database = currentDatabase() AND name = {table:String}",
            parameters={"table": table},
        ).result_rows
    return str(found[0][0]) if found else None


def table_exists(client: Client, table: str) -> bool:
    """Return whether the client's database has the table."""
    with typed_errors(f"look for table {table}"):
        return bool(client.command(f"EXISTS TABLE {quote_identifier(table)}"))


LEDGER = (
    "create_shard_ledger",
    "create_ingest_runs",
    "create_run_ends",
    "create_alert_events",
    "create_monitor_findings",
    "create_search_builds",
    "create_search_buckets",
    "create_recall_queries",
    "create_recall_truth",
    "create_recall_history",
    "create_search_profiles",
)


MIGRATIONS = (
    (2, "add_files_to_ledger"),
    (3, "add_progress_to_buckets"),
    (4, "add_profile_to_recall_history"),
    (4, "add_profile_to_search_profiles"),
)
"""(schema version, statement) by which tables of earlier versions get what they lack: additions
only, which change nothing that is stored."""

SCHEMA_VERSION = MIGRATIONS[-1][0]


def ensure_ledger(client: Client) -> None:
    """Create the ledger's tables and views where they are absent; bring older ones up to date.

    Raises UnknownCluster, SchemaTooNew.
    """
    check_cluster(client)
    with typed_errors("create the ledger"):
        client.command(statement("create_schema_version"))
        found = int(client.query("SELECT max(version) FROM schema_version").result_rows[0][0])
        if found > SCHEMA_VERSION:
            raise SchemaTooNew(
                f"the tables of this database have structure {found}, this release knows "
                f"{SCHEMA_VERSION}: a newer release has been here. Upgrade the package on every "
                "worker and API server, or give this one a database of its own"
            )
        for name in LEDGER:
            client.command(statement(name))
        _ensure_status(client)
        if found < SCHEMA_VERSION:
            for version, name in MIGRATIONS:
                if version > found:
                    client.command(statement(name))
            row = {"version": SCHEMA_VERSION, "made_by": laion.__version__}
            insert_rows(client, "schema_version", [row])


def _ensure_status(client: Client) -> None:
    """Make the view `shard_status`, or replace one that another release has made.

    Not each time: while a view is replaced, who reads it may be told that there is none, unless the
    database is an Atomic one. The view's comment says which statement has made it.
    """
    text = statement("create_shard_status", literals={"digest": ""})
    digest = hashlib.sha256(text.encode()).hexdigest()
    if table_comment(client, "shard_status") != digest:
        literals = {"digest": quote_string(digest)}
        client.command(statement("create_shard_status", literals=literals))
