"""Tables made from a base table: its columns and storage, none of its owner's indexes.

An owner may add indexes, projections and constraints to a base table, order it by more columns or
move it to another disk. A staging table has to follow where partitions are exchanged, and no
further: an index that every load builds again costs a hundred times the load.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from clickhouse_connect.driver.binding import quote_identifier as quote_any

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_string, staging_table
from laion.clickhouse.schema import ELEMENT_TYPES, column_types
from laion.clickhouse.statements import statement
from laion.datasets import SIZE_COLUMNS, TEXT_COLUMNS
from laion.errors import ClickHouseError, ClickHouseUnreachable, TableMismatch
from laion.shards import MAX_SHARD

DROP_SETTINGS = {"max_table_size_to_drop": 0, "max_partition_size_to_drop": 0}
"""For this package's own tables, which can be made again. Otherwise a server refuses to drop what
is larger than 50 GB (code 359), to save people from mistakes."""

PROBE_BYTES = 4


def derive(client: Client, table: str) -> dict[str, str]:
    """Return the parts of a CREATE TABLE that a table made from a base table takes over from it.

    They are `columns`, `sorting_key`, `primary_key` and `storage_policy`, as SQL. Raises
    TableMismatch when there is no such table, ClickHouseError.
    """
    with typed_errors(f"read the structure of {table}"):
        columns = client.query(statement("table_columns"), parameters={"table": table}).result_rows
        layout = client.query(statement("table_layout"), parameters={"table": table}).result_rows
    if not layout:
        raise TableMismatch(f"there is no table {table!r}, although it was there before")
    ((sorting_key, primary_key, policy),) = layout
    return {
        "columns": ",\n    ".join(
            " ".join(filter(None, (quote_any(name), *rest))) for name, *rest in columns
        ),
        "sorting_key": sorting_key,
        "primary_key": primary_key,
        "storage_policy": f", storage_policy = {quote_string(policy)}" if policy else "",
    }


def make_staging_table(client: Client, table: str, staging: str) -> None:
    """Make an empty staging table of a base table, in place of one that may be there."""
    drop_derived(client, staging)
    with typed_errors(f"create {staging}"):
        client.command(statement("create_staging", staging=staging, literals=derive(client, table)))


def drop_derived(client: Client, table: str) -> None:
    """Drop a staging table or a build's search table, however large, if it exists."""
    with typed_errors(f"drop {table}"):
        client.command(statement("drop_table", table=table), settings=DROP_SETTINGS)


def check_publishable(client: Client, table: str, vectors: Sequence[str]) -> None:
    """Check that shards can be published into a base table as its owner has left it.

    Compares the columns with what shards bring, and tries with an empty staging table whether the
    server lets the two exchange partitions. Raises TableMismatch, ClickHouseError.
    """
    if wrong := _wrong_columns(column_types(client, table), vectors):
        raise TableMismatch(
            f"shards cannot be loaded into table {table!r}, which was altered: {'; '.join(wrong)}. "
            "Change that back, or choose another name with the param `table`."
        )
    staging = staging_table(table, MAX_SHARD, secrets.token_hex(PROBE_BYTES))
    make_staging_table(client, table, staging)
    try:
        with typed_errors(f"exchange partitions of {table} with a staging table"):
            client.command(
                statement(
                    "attach_nothing",
                    table=table,
                    staging=staging,
                    literals={"shard": str(MAX_SHARD)},
                )
            )
    except ClickHouseUnreachable:
        raise
    except ClickHouseError as error:
        raise TableMismatch(
            f"shards cannot be published into table {table!r} as it is: {error}. Change back what "
            "was altered of it, or choose another name with the param `table`."
        ) from error
    finally:
        drop_derived(client, staging)


def _wrong_columns(found: dict[str, str], vectors: Sequence[str]) -> list[str]:
    """Return what is wrong with a base table's columns, one sentence each."""
    expected = {
        "id": ["Int64"],
        "shard": ["UInt16"],
        "similarity": ["Float32"],
        **{name: ["String"] for name in TEXT_COLUMNS},
        **{name: ["UInt32"] for name in SIZE_COLUMNS},
        **{name: [f"Array({element})" for element in ELEMENT_TYPES] for name in vectors},
    }
    wrong = []
    for name, kinds in expected.items():
        if name not in found:
            wrong.append(f"it has no column {name}")
        elif re.sub(r"(LowCardinality|Nullable)\((.*)\)", r"\2", found[name]) not in kinds:
            wrong.append(f"column {name} is {found[name]}, not {' or '.join(kinds)}")
    return wrong
