"""What state a shard is in: the one answer, for board, backfill, monitor and gate."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """The stages of a shard's way, in their order."""

    PLAN = "plan"
    DOWNLOAD = "download"
    CONVERT = "convert"
    LOAD = "load"
    VALIDATE = "validate"
    PUBLISH = "publish"


class StageState(StrEnum):
    """How far a stage is. Only the stage `plan` is ever planned."""

    PLANNED = "planned"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class ShardState(StrEnum):
    """The state of a shard.

    A shard is failed when its last attempt failed, or was killed while an earlier publication is
    in. It is missing when the table has nothing of what a run planned: its load never began, was
    killed, or somebody dropped its partition. It is mismatched when the table has another number of
    rows than were published, or than the dataset lists.
    """

    UNPLANNED = "unplanned"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    CONVERTING = "converting"
    LOADING = "loading"
    VALIDATED = "validated"
    FAILED = "failed"
    MISMATCHED = "mismatched"
    MISSING = "missing"


IN_WORK = frozenset(
    {ShardState.QUEUED, ShardState.DOWNLOADING, ShardState.CONVERTING, ShardState.LOADING}
)
"""The states of a shard that an active run takes care of."""

_AT_WORK = {
    Stage.PLAN: ShardState.QUEUED,
    Stage.DOWNLOAD: ShardState.DOWNLOADING,
    Stage.CONVERT: ShardState.CONVERTING,
    Stage.LOAD: ShardState.LOADING,
    Stage.VALIDATE: ShardState.LOADING,
    Stage.PUBLISH: ShardState.LOADING,
}


def shard_state(
    stage: str,
    state: str,
    *,
    held_rows: int,
    published_rows: int | None,
    listed_rows: int | None = None,
    is_awaited: bool = False,
    is_active: bool = False,
) -> ShardState:
    """Return the state of a shard whose last attempt has come to a stage, and how far.

    `stage` is `plan` without an attempt, and empty for a shard that no run has planned.
    `published_rows` are those of the last publication, None without one; `listed_rows` those that
    the dataset has, where that is known. `is_awaited`: an active run has planned the shard since;
    `is_active`: the run of the last attempt is active.
    """
    is_published_last = (stage, state) == (Stage.PUBLISH, StageState.DONE)
    if is_awaited:
        return ShardState.QUEUED
    if state == StageState.FAILED:
        return ShardState.FAILED
    if is_active and stage and not is_published_last:
        return _AT_WORK[Stage(stage)]
    if not held_rows:
        return ShardState.MISSING if stage else ShardState.UNPLANNED
    if published_rows is not None and not is_published_last:
        return ShardState.FAILED
    is_right = held_rows == published_rows and listed_rows in (None, published_rows)
    return ShardState.VALIDATED if is_right else ShardState.MISMATCHED
