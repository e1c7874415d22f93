"""What runs make, as Airflow assets: to be seen in the UI, and for other DAGs to be scheduled by.

A DAG scheduled by one of them runs when a run has finished it; `extra` of the event says of which
table. A shard is an event of its own, with a partition key, which starts only DAGs with a schedule
by partitions.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, get_current_context

from laion.shards import ShardSpec

BASE_TABLE = Asset(name="laion_base_table")
SEARCH_TABLE = Asset(name="laion_search_table")
FUNCTIONS = Asset(name="laion_functions")


def tell_shard(spec: ShardSpec, *, attempt: str, rows: int) -> None:
    """Make the event of the running task one of the partition `<table>/<shard>`."""
    tell(BASE_TABLE, table=spec.table, shard=spec.shard, attempt=attempt, rows=rows)
    event = get_current_context()["outlet_events"][BASE_TABLE]
    event.add_partitions(f"{spec.table}/{spec.shard}")


def tell(asset: Asset, **facts: Any) -> None:
    """Add facts, of JSON's types, to the event of an asset that the running task makes."""
    get_current_context()["outlet_events"][asset].extra.update(facts)
