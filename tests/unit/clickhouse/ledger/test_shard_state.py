"""What state a shard is in."""

from __future__ import annotations

from itertools import product

import pytest

from laion.clickhouse.ledger.shard_state import IN_WORK, ShardState, Stage, StageState, shard_state


@pytest.mark.parametrize(
    ("stage", "state", "published", "held", "expected"),
    [
        ("", "", None, 0, ShardState.UNPLANNED),
        ("", "", None, 5, ShardState.MISMATCHED),
        ("plan", "planned", None, 0, ShardState.MISSING),
        ("plan", "planned", None, 5, ShardState.MISMATCHED),
        ("load", "started", None, 0, ShardState.MISSING),
        ("load", "done", None, 0, ShardState.MISSING),
        ("load", "started", None, 5, ShardState.MISMATCHED),
        ("load", "started", 5, 5, ShardState.FAILED),
        ("load", "started", 5, 0, ShardState.MISSING),
        ("load", "failed", None, 0, ShardState.FAILED),
        ("load", "failed", 5, 5, ShardState.FAILED),
        ("publish", "done", 5, 5, ShardState.VALIDATED),
        ("publish", "done", 5, 4, ShardState.MISMATCHED),
        ("publish", "done", 5, 0, ShardState.MISSING),
    ],
)
def test_when_no_run_is_at_work_on_it(
    stage: str, state: str, published: int | None, held: int, expected: ShardState
) -> None:
    assert shard_state(stage, state, held_rows=held, published_rows=published) is expected


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage.PLAN, ShardState.QUEUED),
        (Stage.DOWNLOAD, ShardState.DOWNLOADING),
        (Stage.CONVERT, ShardState.CONVERTING),
        (Stage.LOAD, ShardState.LOADING),
        (Stage.VALIDATE, ShardState.LOADING),
    ],
)
def test_when_a_run_is_at_work_on_it(stage: Stage, expected: ShardState) -> None:
    for published, held in ((None, 0), (5, 5), (5, 0)):
        found = shard_state(
            stage, "started", held_rows=held, published_rows=published, is_active=True
        )
        assert found is expected
        assert found in IN_WORK


def test_a_shard_that_an_active_run_has_planned_again_waits_whatever_it_was() -> None:
    for stage, state, held in product(Stage, StageState, (0, 5)):
        found = shard_state(stage, state, held_rows=held, published_rows=5, is_awaited=True)
        assert found is ShardState.QUEUED


def test_a_shard_whose_rows_the_dataset_lists_otherwise_is_mismatched() -> None:
    for listed, expected in ((5, ShardState.VALIDATED), (6, ShardState.MISMATCHED)):
        found = shard_state("publish", "done", held_rows=5, published_rows=5, listed_rows=listed)
        assert found is expected
