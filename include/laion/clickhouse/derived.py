"""Tables made from a base table: its columns and storage, none of its owner's indexes.

An owner may add indexes, projections and constraints to a base table, order it by more columns or
move it to another disk. A staging table has to follow where partitions are exchanged, and no
further: an index that every load builds again costs a hundred times the load.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from laion.clickhouse.client import DRIVER_ERRORS, Client, read_rows, typed_errors
from laion.clickhouse.identifiers import quote_column, staging_table
from laion.clickhouse.schema import ELEMENT_TYPES
from laion.clickhouse.statements import statement
from laion.columns import COLUMNS
from laion.errors import (
    ClickHouseAuthFailed,
    ClickHouseBusy,
    ClickHouseError,
    ClickHouseUnreachable,
    TableMismatch,
)
from laion.shards import MAX_SHARD

DROP_SETTINGS = {"max_table_size_to_drop": 0, "max_partition_size_to_drop": 0}
NOT_DROPPED_CODE = 359
"""A server refuses to drop what is larger than 50 GB, to save people from mistakes. This package's
own tables can be made again."""

CREATE_SETTINGS = {
    # A column of a Nested is named as it is in the base table.
    "flatten_nested": 0,
    # What the owner was once allowed is good for a copy.
    "allow_suspicious_codecs": 1,
    "allow_suspicious_low_cardinality_types": 1,
}
STAGING_SETTINGS = {
    # Merging rows that move on in a moment would be work for nothing.
    "max_bytes_to_merge_at_min_space_in_pool": "1",
    "max_bytes_to_merge_at_max_space_in_pool": "1",
}
PLACEMENT = re.compile(
    r"\b(?:storage_policy = '[^']*'|disk = (?:'[^']*'|disk\((?:[^()]|\([^()]*\))*\)))"
)

VECTOR_TAKES = rf"Array\((?:{'|'.join(ELEMENT_TYPES)})\)"


@dataclass(frozen=True)
class TableColumn:
    """A column of a table as it is. `kind` is DEFAULT, MATERIALIZED, ALIAS, EPHEMERAL or empty."""

    name: str
    type: str
    kind: str
    expression: str
    codec: str

    @property
    def definition(self) -> str:
        """The column as CREATE TABLE has it."""
        parts = (quote_column(self.name), self.type, self.kind, self.expression, self.codec)
        return " ".join(filter(None, parts))


def read_columns(client: Client, table: str) -> list[TableColumn]:
    """Return the columns of a table in their order; none when there is no table."""
    with typed_errors(f"read the columns of {table}"):
        rows = read_rows(client, "table_columns", table=table)
    return [TableColumn(**row) for row in rows]


def derive(client: Client, table: str) -> dict[str, str]:
    """Return the parts of a CREATE TABLE that a table made from a base table takes over from it.

    They are `columns`, `sorting_key`, `primary_key`, `settings` (all of them, and those of a
    staging table) and `placement` (a comma, storage policy or disk), as SQL. Raises TableMismatch
    when there is no such table, ClickHouseError.
    """
    columns = read_columns(client, table)
    with typed_errors(f"read the structure of {table}"):
        layout = read_rows(client, "table_layout", table=table)
    if not layout:
        raise TableMismatch(f"there is no table {table!r}, although it was there before")
    (facts,) = layout
    settings = facts["settings"]
    own = [f"{name} = {value}" for name, value in STAGING_SETTINGS.items() if name not in settings]
    return {
        "columns": ",\n    ".join(column.definition for column in columns),
        "sorting_key": facts["sorting_key"],
        "primary_key": facts["primary_key"],
        "settings": ", ".join(filter(None, [settings, *own])),
        "placement": "".join(f", {placed}" for placed in PLACEMENT.findall(settings)),
    }


def make_staging_table(client: Client, table: str, staging: str) -> None:
    """Make an empty staging table of a base table, in place of one that may be there."""
    drop_derived(client, staging)
    text = statement("create_staging", staging=staging, literals=derive(client, table))
    with typed_errors(f"create {staging}"):
        client.command(text, settings=CREATE_SETTINGS)


def drop_derived(client: Client, table: str) -> None:
    """Drop a staging table or a build's search table, however large, if it exists."""
    with typed_errors(f"drop {table}"):
        drop_however_large(client, statement("drop_table", table=table))


def drop_however_large(client: Client, text: str) -> None:
    """Run a statement that drops a table or partition of this package's own.

    The server's limit is only lifted when it is in the way: a profile may not let us.
    """
    try:
        client.command(text)
    except DRIVER_ERRORS as error:
        if getattr(error, "code", None) != NOT_DROPPED_CODE:
            raise
        client.command(text, settings=DROP_SETTINGS)


def check_publishable(
    client: Client, table: str, vectors: Sequence[str], attempt: str = ""
) -> None:
    """Check that shards can be published into a base table as its owner has left it.

    Compares the columns with what shards bring, and tries with an empty staging table whether the
    server lets the two exchange partitions. The table is named by `attempt`, 8 hex digits, or at
    random. Raises TableMismatch, ClickHouseError.
    """
    if wrong := _wrong_columns(read_columns(client, table), vectors):
        raise TableMismatch(
            f"shards cannot be loaded into table {table!r}, which was altered: {'; '.join(wrong)}. "
            "Change that back, or choose another name with the param `table`."
        )
    staging = staging_table(table, MAX_SHARD, attempt or secrets.token_hex(4))
    try:
        make_staging_table(client, table, staging)
        literals = {"shard": str(MAX_SHARD)}
        with typed_errors(f"exchange partitions of {table} with a staging table"):
            client.command(
                statement("attach_nothing", table=table, staging=staging, literals=literals)
            )
    except (ClickHouseUnreachable, ClickHouseBusy, ClickHouseAuthFailed, TableMismatch):
        raise
    except ClickHouseError as error:
        raise TableMismatch(
            f"shards cannot be published into table {table!r} as it is: {error}. Change back what "
            "was altered of it, or choose another name with the param `table`."
        ) from error
    finally:
        drop_derived(client, staging)


def _wrong_columns(found: Sequence[TableColumn], vectors: Sequence[str]) -> list[str]:
    """Return what is wrong with a base table's columns, one sentence each."""
    expected = {
        "id": "Int64",
        "shard": "UInt16",
        **{column.name: column.type.takes for column in COLUMNS},
        **dict.fromkeys(vectors, VECTOR_TAKES),
    }
    columns = {column.name: column for column in found}
    wrong = []
    for name, takes in expected.items():
        column = columns.get(name)
        if column is None:
            wrong.append(f"it has no column {name}")
        elif column.kind not in ("", "DEFAULT"):
            wrong.append(f"column {name} is {column.kind}, so that nothing can be put into it")
        elif not re.fullmatch(takes, _unwrapped(column.type)):
            wrong.append(f"column {name} is {column.type}, which does not hold what shards bring")
    return wrong


def _unwrapped(kind: str) -> str:
    while wrapped := re.fullmatch(r"(?:LowCardinality|Nullable)\((.*)\)", kind):
        kind = wrapped[1]
    return kind
