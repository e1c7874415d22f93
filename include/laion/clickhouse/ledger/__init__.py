"""The ledger: what happened to every shard, as append-only rows in ClickHouse.

It is the one memory of this package. The gate, `shards="failed"`, backfill and the boards read
it; nothing is decided from what Airflow remembers.
"""

from laion.clickhouse.ledger.events import (
    Ledger,
    ShardEvent,
    ShardOutcome,
    StageResult,
    TaskOrigin,
)

__all__ = ["Ledger", "ShardEvent", "ShardOutcome", "StageResult", "TaskOrigin"]
