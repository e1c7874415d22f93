"""Shards of made-up tables in every state, written into the ledger as the tasks would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.ledger.shard_state import Stage
from laion.clickhouse.schema import ensure_ledger

STAGES = tuple(Stage)

ROWS = 1_000_448
BYTES = 2_205_000_000
ATTEMPT = "aaaa0001"
SECONDS_PER_SHARD = 45

HALF_WAY: dict[str, Iterable[int]] = {
    "publish done": [*range(140), *range(150, 201)],
    "download failed": [140, 168, 203],
    "load failed": [207],
    "load started": range(208, 212),
    "convert started": range(212, 215),
    "download started": range(215, 219),
    "plan planned": range(219, 280),
}
"""A run of LAION-400M at work, with every state but one."""


def write_shards(
    client: Client,
    table: str,
    run_id: str,
    steps: dict[str, Iterable[int]],
    *,
    dataset: str = "laion400m",
    error: str = "img_emb_7.npy has 998,244,352 bytes, but needs 1,024,458,880: it is truncated",
) -> None:
    """Bring shards to a step, such as `load started`; those of earlier steps came first.

    The table holds nothing and is of a kind whose rows the board does not count.
    """
    origin = TaskOrigin("laion_ingest", run_id, log_url="http://127.0.0.1/log")
    ensure_ledger(client)
    Ledger(client).record_run(
        origin, table=table, dataset=dataset, source="", shards="", params={"dataset": dataset}
    )
    client.command(f"CREATE TABLE {quote_identifier(table)} (shard UInt16) ENGINE = Null")
    start = ShardEvent(table, 0, dataset, origin, "plan", "planned", rows_expected=ROWS)
    shards = [(shard, step) for step, numbers in steps.items() for shard in numbers]
    now = datetime.now(UTC)
    events: list[tuple[ShardEvent, datetime]] = []
    for position, (shard, step) in enumerate(shards):
        events.append((replace(start, shard=shard), now - timedelta(days=1)))
        is_past = step == "publish done"
        behind = (len(list(steps["publish done"])) - position) * SECONDS_PER_SHARD if is_past else 1
        at = now - timedelta(seconds=behind)
        events += [(event, at) for event in _events(replace(start, shard=shard), step, error)]
    rows = [{**event.as_row(), "at": at} for event, at in events]
    client.insert("shard_ledger", [[*row.values()] for row in rows], column_names=[*rows[0]])


def _events(start: ShardEvent, step: str, error: str) -> Iterable[ShardEvent]:
    """Yield what an attempt writes until it is at a step."""
    stage, state = step.split()
    before = STAGES[1 : STAGES.index(Stage(stage))] if stage != Stage.PLAN else ()
    for name, how in [*((one, "done") for one in before), (stage, state)]:
        event = replace(start, stage=name, state=how, attempt=ATTEMPT, seconds=12.5)
        if name == "download":
            event = replace(event, bytes=_fetched(start.shard) if how == "started" else BYTES)
        if name == "publish":
            event = replace(event, rows_loaded=ROWS, hash=2**63)
        if how == "failed":
            event = replace(event, error_class="BadNpy", error=error)
        if name != "plan":
            yield event


def _fetched(shard: int) -> int:
    """Return how many bytes of a shard are there: a fifth, two, three or four fifths."""
    return BYTES * (1 + shard % 4) // 5
