"""Who builds a search table, and how far: a lease and a memory, as append-only rows in ClickHouse.

One build per table at a time. A build claims the table, waits until rival claims must be visible,
and reads who was first; the others withdraw. A build that writes nothing for LEASE_S has lapsed.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from laion.clickhouse.client import Client, insert_rows, read_rows, typed_errors
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.ledger.shard_facts import shards_to_index
from laion.clickhouse.search_table.plan import OVER, BucketState, BuildPlan, BuildState
from laion.errors import ClickHouseError, IndexBuildLost
from laion.shards import HeldShard

log = logging.getLogger(__name__)

LEASE_S = 900
"""Longer than a task of a build may wait for a worker; a killed build blocks others for so long."""
ALIVE_EVERY_S = 60
SETTLE_S = 1.0
"""How long a claim waits for rivals: an insert of one row is over long before."""
BUILD_ID_BYTES = 4


class Holder(NamedTuple):
    """Who has the lease of a search table."""

    build_id: str
    dag_id: str
    run_id: str


@dataclass(frozen=True)
class Builds:
    """The builds of one base table's search table, as one Airflow run sees them."""

    client: Client
    table: str
    origin: TaskOrigin

    def claim(self, build_id: str = "") -> Holder:
        """Take the lease, for a build to go on with or a new one, unless another build has it.

        Returns who has it now. A run that has it already keeps its build.
        """
        holder = self.holder()
        if holder is None:
            claimed = build_id or secrets.token_hex(BUILD_ID_BYTES)
            holder = self._claim(claimed)
            if holder.build_id != claimed:
                self.append(claimed, BuildState.WITHDRAWN)
        return holder

    def hold(self, build_id: str) -> None:
        """Make sure that this build has the lease, taking it again when it lapsed.

        Raises IndexBuildLost when another build has it.
        """
        holder = self.holder() or self._claim(build_id)
        if holder.build_id != build_id:
            raise IndexBuildLost(
                f"build {build_id} of {self.table}'s search table paused, and build "
                f"{holder.build_id} of run {holder.run_id} has taken over. Nothing is lost; when "
                "that run has ended, clear `plan_index` with what follows it to build again."
            )

    @contextmanager
    def holding(self, build_id: str) -> Iterator[None]:
        """Hold the lease through the block, however long that takes. Raises IndexBuildLost."""
        self.hold(build_id)
        ended = threading.Event()

        def stay_alive() -> None:
            while not ended.wait(ALIVE_EVERY_S):
                try:
                    if self.is_own(self.holder()):
                        self.append(build_id, BuildState.ALIVE)
                except ClickHouseError:
                    log.warning("The lease could not be renewed.", exc_info=True)

        thread = threading.Thread(target=stay_alive, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def holder(self) -> Holder | None:
        """Return who has the lease."""
        rows = self._rows("active_builds", lease_s=LEASE_S, over=OVER)
        return Holder(**rows[0]) if rows else None

    def is_own(self, holder: Holder | None) -> bool:
        """Return whether this run has the lease."""
        return holder is not None and holder[1:] == (self.origin.dag_id, self.origin.run_id)

    def append(self, build_id: str, state: BuildState, plan: BuildPlan | None = None) -> None:
        """Write an event of a build."""
        self._insert(
            "search_builds",
            {
                "table": self.table,
                "build_id": build_id,
                "state": state,
                "dag_id": self.origin.dag_id,
                "run_id": self.origin.run_id,
                "plan": plan.to_json() if plan else "",
            },
        )

    def of_run(self) -> tuple[BuildPlan | None, str]:
        """Return the newest build of this run, and its last state; (None, '') when it has none."""
        rows = self._rows("builds_of_run", dag_id=self.origin.dag_id, run_id=self.origin.run_id)
        return (
            (BuildPlan.from_json(rows[0]["newest_plan"]), rows[0]["last_state"])
            if rows
            else (None, "")
        )

    def published(self) -> BuildPlan | None:
        """Return the build that was put in place last; None when none ever was."""
        rows = self._rows("published_build")
        return BuildPlan.from_json(rows[0]["plan"]) if rows else None

    def state(self, build_id: str) -> str:
        """Return the last state of a build, other than that it is alive or claims the lease."""
        rows = self._rows("build_state", build_id=build_id)
        return str(rows[0]["last_state"]) if rows else ""

    def buckets(self, build_id: str) -> dict[int, BucketState]:
        """Return how far each bucket of a build is."""
        rows = self._rows("build_buckets", build_id=build_id)
        return {
            row["bucket"]: BucketState(**{**row, "shards": _as_held(row["shards"])}) for row in rows
        }

    def record_bucket(self, build_id: str, bucket: BucketState) -> None:
        """Write how far a bucket is."""
        row = {"table": self.table, "build_id": build_id, **bucket.__dict__}
        self._insert("search_buckets", row)

    def sources(self) -> list[HeldShard]:
        """Return every shard in the base table, by number."""
        return shards_to_index(self.client, self.table)

    def _claim(self, build_id: str) -> Holder:
        """Claim the lease, wait for rival claims to show, and return who was first."""
        self.append(build_id, BuildState.CLAIMED)
        time.sleep(SETTLE_S)
        holder = self.holder()
        if holder is None:
            raise IndexBuildLost(f"the claim on {self.table}'s search table lapsed at once")
        return holder

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        with typed_errors(f"write to {table}"):
            insert_rows(self.client, table, [row])

    def _rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        with typed_errors("read the builds of the search table"):
            return read_rows(self.client, name, table=self.table, **parameters)


def _as_held(rows: Sequence[Sequence[Any]]) -> tuple[HeldShard, ...]:
    return tuple(HeldShard(*row) for row in rows)
