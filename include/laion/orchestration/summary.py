"""The outcome of a run as text for logs and alerts."""

from __future__ import annotations

from collections.abc import Sequence

from laion.backfill import backfill_command
from laion.clickhouse.ledger import ShardOutcome
from laion.clickhouse.ledger.alert_log import cause_of
from laion.clickhouse.ledger.shard_state import StageState
from laion.shards import format_shards, shard_label

MAX_LISTED = 20


def format_digest(
    dataset: str, table: str, outcomes: list[ShardOutcome], recovered: Sequence[int] = ()
) -> str:
    """Return how many shards are in, and of those that are not: where they stopped and why.

    Shards that failed alike are one line, with the error of the first. `recovered` are shards in
    the table now whose failure, in any run, was told before.
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
    causes: dict[tuple[str, str], list[ShardOutcome]] = {}
    for outcome in missing:
        key = outcome.state, cause_of(outcome.error_class, outcome.error)
        causes.setdefault(key, []).append(outcome)
    for alike in list(causes.values())[:MAX_LISTED]:
        lines.append(f"  {_describe_cause(alike)}")
    if len(causes) > MAX_LISTED:
        lines.append(f"  … and {len(causes) - MAX_LISTED} more; see the view shard_status.")
    if missing:
        shards = format_shards([outcome.shard for outcome in missing])
        lines += [
            "To load them, clear the failed tasks of this run, or:",
            f"  {backfill_command(table, shards=shards)}",
        ]
    return "\n".join(lines)


def _describe_cause(alike: list[ShardOutcome]) -> str:
    first = alike[0]
    who = shard_label(first.shard)
    if len(alike) > 1:
        who = f"{len(alike)} shards ({format_shards([outcome.shard for outcome in alike])})"
    reason = f"{first.error_class}: {first.error}" if first.error_class else ""
    return f"{who}: {_ended(first)}. {reason}".rstrip()


def format_progress(outcomes: list[ShardOutcome]) -> str:
    """Return how far a run is that has not ended."""
    if not outcomes:
        return "It has planned no shard yet, or was to load none."
    published = [outcome for outcome in outcomes if outcome.is_published]
    failed = [
        outcome.shard
        for outcome in outcomes
        if not outcome.is_published and outcome.stage_state == StageState.FAILED
    ]
    text = f"{len(published)} of {len(outcomes)} planned shards are in"
    return f"{text}; shards {format_shards(failed)} failed." if failed else f"{text}; none failed."


def _ended(outcome: ShardOutcome) -> str:
    if outcome.stage_state == StageState.STARTED:
        return f"{outcome.state}, and nothing more was heard of it: its worker was killed or lost"
    return outcome.state
