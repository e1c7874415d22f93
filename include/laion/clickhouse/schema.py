"""The tables: created when absent, refused when they belong to something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import laion
from laion.clickhouse.client import Client, insert_rows, typed_errors
from laion.clickhouse.cluster import check_cluster, ensure_distributed
from laion.clickhouse.identifiers import quote_identifier, quote_string
from laion.clickhouse.statements import statement
from laion.errors import SchemaTooNew, TableMismatch
from laion.shards import VECTORS

ELEMENT_TYPES = ("Float32", "BFloat16")
"""What a base table may hold its vectors as; BFloat16 is half the bytes and 8 bits of precision."""
FORMAT_VERSION = 1
"""Version of the base table's structure, recorded in the table's comment."""


@dataclass(frozen=True)
class TableIdentity:
    """What a base table is for: one dataset, one dimension, one structure."""

    dataset: str
    dimension: int
    format_version: int = FORMAT_VERSION

    def as_comment(self) -> str:
        return json.dumps(
            {
                "laion": {
                    "dataset": self.dataset,
                    "dimension": self.dimension,
                    "format": self.format_version,
                }
            }
        )

    @classmethod
    def from_comment(cls, comment: str) -> TableIdentity | None:
        """Return the identity that a table's comment records, or None if it records none."""
        try:
            facts = json.loads(comment)["laion"]
            return cls(facts["dataset"], int(facts["dimension"]), int(facts["format"]))
        except (ValueError, KeyError, TypeError):
            return None


def ensure_base_table(
    client: Client,
    table: str,
    identity: TableIdentity,
    vectors: Sequence[str] = VECTORS,
    element_type: str = ELEMENT_TYPES[0],
) -> None:
    """Create the base table with these vector columns, or check that it is for the same data.

    An existing table is never altered or dropped; it keeps its element type. Raises TableMismatch.
    """
    comment = quote_string(identity.as_comment())
    with typed_errors(f"create table {table}"):
        columns = (f"{quote_identifier(v)} Array({element_type}) CODEC(NONE)" for v in vectors)
        literals = {"comment": comment, "vectors": ", ".join(columns)}
        client.command(statement("create_base", table=table, literals=literals))
    ensure_distributed(client, table)
    existing = read_identity(client, table)
    if existing != identity:
        raise TableMismatch(
            f"table {table!r} holds dataset {existing.dataset!r} with {existing.dimension} "
            f"dimensions (format {existing.format_version}); this run is for {identity.dataset!r} "
            f"with {identity.dimension} (format {identity.format_version}). Choose another name "
            "with the param `table`."
        )


def read_identity(client: Client, table: str) -> TableIdentity:
    """Return what a base table is for. Raises TableMismatch when there is none of ours."""
    comment = table_comment(client, table)
    if comment is None:
        raise TableMismatch(f"there is no table {table!r}; load at least one shard first")
    identity = TableIdentity.from_comment(comment)
    if identity is None:
        raise TableMismatch(
            f"table {table!r} exists and was not made by this package; it is left alone. Choose "
            "another name with the param `table`."
        )
    return identity


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


MIGRATIONS = ((2, "add_files_to_ledger"), (3, "add_progress_to_buckets"))
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
