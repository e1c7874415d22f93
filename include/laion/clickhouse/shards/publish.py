"""From a staging table into the base table: verify, then swap the shard's partition in one step."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.cluster import sync_replica
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import row_hash, table_exists
from laion.clickhouse.statements import statement
from laion.errors import AttemptSuperseded, StagingGone, ValidationFailed
from laion.shards import ROWS_PER_SHARD_LIMIT, StagedShard
from laion.vectors import Dimensions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardContents:
    """What a table holds of one shard. `hash` is an order-independent UInt64 over all columns."""

    rows: int
    distinct_ids: int
    first_id: int
    last_id: int
    odd_vectors: int
    hash: int


def read_contents(client: Client, table: str, shard: int, dimensions: Dimensions) -> ShardContents:
    """Count and hash the rows of a shard in a base or staging table with these vectors."""
    odd = (f"length({quote_identifier(name)}) != {size}" for name, size in dimensions.items())
    literals = {"row_hash": row_hash(tuple(dimensions)), "odd": " OR ".join(odd)}
    with typed_errors(f"count the rows of {table}"):
        found = client.query(
            statement("verify_shard", table=table, literals=literals), parameters={"shard": shard}
        )
    return ShardContents(**next(iter(found.named_results())))


def verify_staging(client: Client, staged: StagedShard) -> ShardContents:
    """Return the contents of the staging table if they are the whole shard, each row once.

    Raises ValidationFailed with the numbers, StagingGone when the table does not exist.
    """
    parquet, spec = staged.parquet, staged.parquet.spec
    if not table_exists(client, staged.staging_table):
        raise StagingGone(
            f"{spec.label}: its staging table {staged.staging_table} is gone and the base table "
            "does not hold this attempt; clear this task to load it again"
        )
    # It may have been loaded through another replica.
    sync_replica(client, staged.staging_table)
    found = read_contents(client, staged.staging_table, spec.shard, parquet.dimensions)
    first = spec.shard * ROWS_PER_SHARD_LIMIT
    expected = ShardContents(
        rows=parquet.rows,
        distinct_ids=parquet.rows,
        first_id=first,
        last_id=first + parquet.rows - 1,
        odd_vectors=0,
        hash=found.hash,
    )
    if found.rows == 0 or found != expected:
        raise ValidationFailed(
            f"{spec.label}: the Parquet file has {parquet.rows:,} rows, the insert reported "
            f"{staged.rows_written:,}, {staged.staging_table} holds {found.rows:,} with "
            f"{found.distinct_ids:,} distinct ids from {found.first_id} to {found.last_id}, and "
            f"{found.odd_vectors:,} with vectors of another length than "
            f"{_lengths(parquet.dimensions)}. Nothing was published; the load will be tried again."
        )
    return found


def _lengths(dimensions: Dimensions) -> str:
    return " or ".join(map(str, dict.fromkeys(dimensions.values())))


def publish_shard(client: Client, ledger: Ledger, staged: StagedShard) -> ShardContents:
    """Make a verified shard visible in one step and return its contents.

    The partition of the shard is replaced whole, so repeating this is harmless. Raises
    AttemptSuperseded when a later attempt was published meanwhile, ValidationFailed, StagingGone.
    """
    spec = staged.parquet.spec
    contents = verify_staging(client, staged)
    newer = ledger.newer_publication(spec.table, spec.shard, staged.parquet.attempt)
    if newer is not None:
        raise AttemptSuperseded(
            f"{spec.label}: attempt {newer[0]} of run {newer[1]} started later and is published; "
            f"attempt {staged.parquet.attempt} is dropped. Nothing is lost; let one run at a time "
            "load a shard."
        )
    with typed_errors(f"publish {spec.label}"):
        client.command(
            statement(
                "replace_partition",
                table=spec.table,
                staging=staged.staging_table,
                literals={"shard": str(spec.shard)},
            )
        )
    log.info("%s: %d rows are now in %s", spec.label, contents.rows, spec.table)
    return contents


def is_already_published(client: Client, ledger: Ledger, staged: StagedShard) -> bool:
    """Return whether the base table already holds exactly this attempt of the shard."""
    spec = staged.parquet.spec
    published = ledger.publication(spec.table, spec.shard, staged.parquet.attempt)
    if published is None:
        return False
    found = read_contents(client, spec.table, spec.shard, staged.parquet.dimensions)
    return (found.rows, found.hash) == published
