"""A shard's place in the staging area: waited for, taken over, given back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from laion.clickhouse.ledger import Ledger, ShardEvent
from laion.errors import ClickHouseError
from laion.orchestration.leftovers import discard_attempt, free_places
from laion.orchestration.origin import fails_for_good
from laion.storage import StagingArea

log = logging.getLogger(__name__)

WAIT_FOR_ROOM_S = 60
"""How long a download waits in its process; starting one costs more than this waiting does."""
ASK_FOR_ROOM_EVERY_S = 2
QUIET_S = 10
"""When nothing of what is staged has moved for so long, it may lack the workers we hold."""


def find_room(ledger: Ledger, area: StagingArea, start: ShardEvent) -> bool:
    """Take a place in the staging area, waiting for one while the shards there make progress.

    Returns False after a while, or when they make none: they may be waiting for our worker.
    """
    if area.claim(start.table, start.shard, start.attempt):
        return True
    for freed in free_places(ledger, area):
        log.warning("Removed what was left of %s", freed)
    log.info("Waiting: %d shards are staged already.", area.capacity)
    give_up = time.monotonic() + WAIT_FOR_ROOM_S
    while True:
        staged = [attempt for _, _, attempt in area.attempts()]
        # A claim in vain is one more moment in which to be killed and to leave it.
        if len(staged) < area.capacity and area.claim(start.table, start.shard, start.attempt):
            return True
        if time.monotonic() > give_up or not ledger.are_moving(staged, QUIET_S):
            return False
        time.sleep(ASK_FOR_ROOM_EVERY_S)


def take_over(ledger: Ledger, area: StagingArea, start: ShardEvent) -> bool:
    """Take over what this run's earlier tries at the shard have fetched; free the rest of it."""
    taken = False
    for earlier in ledger.attempts(start):
        taken = taken or area.adopt(start.table, start.shard, earlier, start.attempt)
        discard_attempt(ledger, area, start.table, start.shard, earlier)
    return taken


@contextmanager
def freeing_on_final_failure(
    ledger: Ledger, area: StagingArea, start: ShardEvent
) -> Iterator[None]:
    """Free the place of a shard in the staging area when its task fails for the last time."""
    try:
        yield
    except Exception as error:
        if fails_for_good(error):
            try:
                discard_attempt(ledger, area, start.table, start.shard, start.attempt)
            except ClickHouseError:
                log.exception("The staging table of attempt %s is left over.", start.attempt)
        raise
