"""The digest of a run."""

from __future__ import annotations

from laion.clickhouse.ledger import ShardOutcome
from laion.orchestration.summary import format_digest, format_progress


def outcome(shard: int, state: str, error: str = "") -> ShardOutcome:
    is_in = state == "validated"
    stage, _, stage_state = ("publish done" if is_in else state).partition(" ")
    return ShardOutcome(
        shard=shard,
        is_published=is_in,
        is_published_by_run=is_in,
        stage=stage,
        stage_state=stage_state,
        rows_expected=60,
        rows_loaded=60 if is_in else 0,
        seconds=1.0,
        error_class="BadNpy" if error else "",
        error=error,
        log_url="",
    )


def test_shards_that_failed_alike_are_one_line_with_the_command_that_loads_them() -> None:
    outcomes = [
        outcome(0, "validated"),
        *(outcome(s, "download failed", f"img_emb_{s}.npy is truncated") for s in range(1, 60)),
        outcome(60, "load started"),
    ]

    assert format_digest("laion400m", "hold", outcomes, [0]).splitlines() == [
        "laion400m: 1 of 61 planned shards are in table hold, with 60 rows.",
        "Recovered: shards 0 failed before.",
        "Missing: shards 1-60.",
        "  59 shards (1-59): download failed. BadNpy: img_emb_1.npy is truncated",
        "  shard 00060: load started, and nothing more was heard of it: its worker was killed or "
        "lost.",
        "To load them, clear the failed tasks of this run, or:",
        "  airflow dags trigger laion_backfill --conf "
        """'{"table": "hold", "shards": "1-60", "dry_run": false}'""",
    ]


def test_a_whole_run_is_one_line() -> None:
    assert format_digest("laion400m", "laion400m", [outcome(0, "validated")]) == (
        "laion400m: 1 of 1 planned shards are in table laion400m, with 60 rows."
    )


def test_the_progress_of_a_run_names_what_failed() -> None:
    outcomes = [outcome(0, "validated"), outcome(1, "load failed", "x"), outcome(2, "plan planned")]

    assert format_progress(outcomes) == "1 of 3 planned shards are in; shards 1 failed."
    assert format_progress(outcomes[:1]) == "1 of 1 planned shards are in; none failed."
    assert format_progress([]) == "It has planned no shard yet, or was to load none."
