"""The outcome of a run as text for logs and alerts."""

from __future__ import annotations

from collections.abc import Sequence

from laion.clickhouse.ledger import ShardOutcome
from laion.shards import format_shards, shard_label

MAX_LISTED = 20


def format_digest(
    dataset: str, table: str, outcomes: list[ShardOutcome], recovered: Sequence[int] = ()
) -> str:
    """Return how many shards are in, and for each that is not: where it stopped and why.

    `recovered` are shards in the table now whose failure, in any run, was told before.
    """
    missing = [outcome for outcome in outcomes if not outcome.is_published]
    rows = sum(outcome.rows_loaded for outcome in outcomes)
    lines = [
        f"{dataset}: {len(outcomes) - len(missing)} of {len(outcomes)} planned shards are in table "
        f"{table}, with {rows:,} rows."
    ]
    if recovered:
        lines.append(f"Recovered: shards {format_shards(list(recovered))} failed before.")
    if missing:
        lines.append(f"Missing: shards {format_shards([outcome.shard for outcome in missing])}.")
    for outcome in missing[:MAX_LISTED]:
        reason = f"{outcome.error_class}: {outcome.error}" if outcome.error_class else ""
        lines.append(f"  {shard_label(outcome.shard)}: {_ended(outcome)}. {reason}".rstrip())
    if len(missing) > MAX_LISTED:
        lines.append(f"  … and {len(missing) - MAX_LISTED} more; see the view shard_status.")
    if missing:
        lines.append(
            "To load them: clear the failed tasks of this run, or trigger laion_ingest with "
            f'{{"dataset": "{dataset}", "table": "{table}", "shards": "missing"}}.'
        )
    return "\n".join(lines)


def _ended(outcome: ShardOutcome) -> str:
    if outcome.state.endswith(" started"):
        return f"{outcome.state}, and nothing more was heard of it: its worker was killed or lost"
    return outcome.state
