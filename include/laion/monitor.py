"""What may have gone wrong with a table since it was loaded: checks that change nothing.

Each check returns a `Finding` for every thing that is wrong; `run_checks` adds a row for what was
in order, so that one can see that it was looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from laion.backfill import (
    QUIET_S,
    Action,
    BackfillRequest,
    Reason,
    ShardRepair,
    backfill_command,
    plan_backfill,
)
from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.identifiers import quote_identifier, search_table
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.clickhouse.ledger.alert_log import without_numbers
from laion.clickhouse.ledger.shard_facts import read_shard_facts
from laion.clickhouse.schema import read_identity
from laion.clickhouse.search_table.in_use import read_in_use, read_state, view_names
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import FIRST_KIND, BuildPlan, IndexOptions
from laion.clickhouse.search_table.recheck import recheck_recall
from laion.clickhouse.shards.publish import read_contents
from laion.errors import LaionError, TableGone
from laion.shards import format_shards

NIGHTS = 30
"""Every shard is hashed once in so many nights."""
MIN_FREE = 0.1
"""Share of a disk below which its room is a finding."""
MAX_SHARDS = 1 << 16


class Outcome(StrEnum):
    """What a check has come to; FAILED when it could not be made."""

    OK = "ok"
    FOUND = "found"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what is to be done about it."""

    check: str
    state: Outcome
    summary: str
    remedy: str = ""
    seconds: float = field(default=0.0, compare=False)


Check = Callable[[], Iterable[Finding]]


class Skipped(Exception):
    """A check does not apply here; the text says why."""


def run_checks(checks: dict[str, Check]) -> list[Finding]:
    """Run every check; one that fails does not keep the others from running."""
    findings: list[Finding] = []
    for name, check in checks.items():
        began = time.monotonic()
        try:
            found = list(check()) or [Finding(name, Outcome.OK, "as it should be")]
        except Skipped as reason:
            found = [Finding(name, Outcome.SKIPPED, str(reason))]
        except LaionError as error:
            text = f"the check could not be made: {type(error).__name__}: {error}"
            found = [Finding(name, Outcome.FAILED, text)]
        seconds = time.monotonic() - began
        findings += [replace(finding, seconds=seconds) for finding in found]
    return findings


def record_findings(client: Client, table: str, run_id: str, findings: Sequence[Finding]) -> None:
    """Write the findings into `monitor_findings`."""
    rows = [{"table": table, "run_id": run_id, **finding.__dict__} for finding in findings]
    if rows:
        Ledger(client).insert("monitor_findings", rows)


def monitored_tables(client: Client) -> list[tuple[str, str]]:
    """Return (table, dataset) of every table that a run has loaded into."""
    return [
        (row["table"], row["newest_dataset"]) for row in Ledger(client).rows("monitored_tables")
    ]


def check_counts(client: Client, table: str, quiet_s: float = QUIET_S) -> list[Finding]:
    """Compare the ledger with the rows that the table holds: one finding for each cause.

    Shards that a run is at work on, one that wrote something in the last `quiet_s`, do not count.
    """
    request = BackfillRequest(table, max_shards=MAX_SHARDS, quiet_s=quiet_s)
    due = [repair for repair in plan_backfill(client, request) if repair.action is Action.LOAD]
    causes: dict[tuple[str, str], list[ShardRepair]] = {}
    for repair in due:
        causes.setdefault((repair.reason, without_numbers(repair.why)), []).append(repair)
    return [_damage("counts", table, repairs) for repairs in causes.values()]


def check_runs(client: Client, table: str, deadline_s: float) -> list[Finding]:
    """Look whether the newest run that loads into a table should have ended long ago."""
    if not deadline_s:
        raise Skipped("runs have no deadline")
    rows = Ledger(client).rows("unended_run", table=table, older_s=round(deadline_s))
    return [
        Finding(
            "runs",
            Outcome.FOUND,
            f"run {row['run_id']} was planned {row['hours']} hours ago and has not come to its "
            "gate: it is late, or was lost",
            f"if Airflow is not at work on it any more: {backfill_command(table, which='missing')}",
        )
        for row in rows
    ]


def check_index(client: Client, table: str) -> list[Finding]:
    """Look for shards that the search table does not hold as they are, and for lost indexes."""
    request = BackfillRequest(table, which=Reason.STALE, max_shards=MAX_SHARDS)
    due = [repair for repair in plan_backfill(client, request) if repair.action is Action.INDEX]
    stale = [_damage("index", table, due)] if due else []
    return [*stale, *_lost_views(client, table), *_changed_buckets(client, table)]


def _lost_views(client: Client, table: str) -> Iterator[Finding]:
    """Yield a finding when what a build has put in place is not there any more."""
    published = _builds(client, table).published()
    if published is None:
        return
    views = read_state(client, table).views
    lost = [view for view in view_names(table, published.vectors).values() if view not in views]
    if lost:
        text = f"nobody can search by {' and '.join(lost)}: the views of the last build are gone"
        yield Finding("index", Outcome.FOUND, text, _rebuild(table, published))


def _changed_buckets(client: Client, table: str) -> Iterator[Finding]:
    """Yield a finding for each bucket of the search table that is not as it was built."""
    plan = read_in_use(client, table)
    try:
        yield from _compare_buckets(client, table, plan)
    except TableGone as error:
        assert plan is not None
        text = f"a table of the search table is gone: {error}"
        yield Finding("index", Outcome.FOUND, text, _rebuild(table, plan))


def _compare_buckets(client: Client, table: str, plan: BuildPlan | None) -> Iterator[Finding]:
    if plan is None:
        plan = _builds(client, table).published()
        if plan is not None and plan.options.kind == FIRST_KIND:
            text = f"{search_table(table)}, which was put in place last, is gone"
            yield Finding("index", Outcome.FOUND, text, _rebuild(table, plan))
        return
    kind = kind_of(plan.options)
    if kind.is_live:
        return
    searched = kind.place(table, plan, in_use=True)
    remedy = _rebuild(table, plan)
    buckets = _builds(client, table).buckets(plan.build_id)
    held = 0
    for number, bucket in buckets.items():
        with typed_errors(f"read bucket {number} of {searched}"):
            contents = kind.contents(client, searched, plan, number)
        held += contents.rows
        if bucket.is_done and not contents.are_of(bucket):
            text = (
                f"bucket {number} of {searched} is not as it was built: {contents.rows:,} of "
                f"{bucket.rows:,} rows, {contents.index_bytes:,} of {bucket.index_bytes:,} bytes "
                "of index"
            )
            if contents.problem:
                text += f"; it is {contents.problem}"
            yield Finding("index", Outcome.FOUND, text, remedy)
    with typed_errors(f"count the rows of {searched}"):
        name = kind.table_of(searched, next(iter(plan.vectors)))
        query = f"SELECT count() FROM {quote_identifier(name)}"
        rows = int(client.query(query).result_rows[0][0])
    if rows != held:
        text = f"{searched} has {rows - held:,} rows in buckets that no build made"
        yield Finding("index", Outcome.FOUND, text, remedy)


def check_drift(client: Client, table: str) -> list[Finding]:
    """Look whether the rows have become unlike those that the index in use was made by."""
    plan = read_in_use(client, table)
    if plan is None:
        raise Skipped("there is no index")
    first = _builds(client, table).buckets(plan.root).values()
    known = {held for bucket in first for held in bucket.shards}
    remedy = _rebuild(table, plan, ", rebuild_index on")
    return [
        Finding("drift", Outcome.FOUND, found, remedy)
        for found in kind_of(plan.options).drift(client, table, plan, known)
    ]


def check_hashes(client: Client, table: str, night: int) -> list[Finding]:
    """Hash one thirtieth of the shards and compare with the hash at their publication.

    `night` counts days; each shard has its turn every NIGHTS of them.
    """
    vectors = read_identity(client, table).vectors
    turn = [
        fact
        for fact in read_shard_facts(client, table)
        if fact.shard % NIGHTS == night % NIGHTS
        and fact.is_held
        and fact.held_rows == fact.published_rows
    ]
    if not turn:
        raise Skipped("no shard has its turn tonight")
    changed = []
    for fact in turn:
        if read_contents(client, table, fact.shard, vectors).hash != fact.published_hash:
            changed.append(fact.shard)
    if not changed:
        shards = format_shards([fact.shard for fact in turn])
        return [Finding("hashes", Outcome.OK, f"shards {shards} are as they were published")]
    shards = format_shards(changed)
    return [
        Finding(
            "hashes",
            Outcome.FOUND,
            f"shards {shards}: as many rows as were published, but with other contents",
            backfill_command(table, shards=shards),
        )
    ]


def check_leftovers(client: Client, table: str, older_s: int) -> list[Finding]:
    """Look for staging tables that no task can be using any more."""
    rows = Ledger(client).rows("leftover_tables", table=table, older_s=older_s)
    names = [row["name"] for row in rows]
    if not names:
        return []
    # However large: a server refuses to drop more than 50 GB otherwise.
    remedy = "; ".join(
        f"DROP TABLE {name} SYNC SETTINGS max_table_size_to_drop = 0" for name in names
    )
    return [
        Finding("leftovers", Outcome.FOUND, f"staging tables are left: {', '.join(names)}", remedy)
    ]


def check_recall(client: Client, table: str, *, queries: int, budget: int) -> list[Finding]:
    """Ask the standing queries again; one finding for each column and kind below its target."""
    measured = recheck_recall(client, table, queries=queries, budget=budget)
    if not measured:
        raise Skipped("there is no index that could find too little")
    plan = read_in_use(client, table)
    remedy = _rebuild(table, plan) if plan else ""
    low = [
        Finding(
            "recall",
            Outcome.FOUND,
            f"{now.column}, {now.kind} queries: recall@10 is {now.at_10:.3f}, below {now.target}",
            remedy,
        )
        for now in measured
        if now.is_low
    ]
    worst = min(now.at_10 for now in measured)
    return low or [Finding("recall", Outcome.OK, f"recall@10 is {worst:.3f} or better")]


def check_disks(client: Client) -> list[Finding]:
    """Look at the room on every disk of the ClickHouse server."""
    with typed_errors("look at its disks"):
        disks = read_rows(client, "disks")
    short = [disk for disk in disks if disk["free_space"] < MIN_FREE * disk["total_space"]]
    return [_short_disk(disk["name"], disk["free_space"], disk["total_space"]) for disk in short]


def _short_disk(name: str, free: int, total: int) -> Finding:
    text = f"disk {name!r} of ClickHouse has {free / total:.0%} free, {free:,} bytes"
    remedy = "free some space, or add a disk, before the next load"
    return Finding("disks", Outcome.FOUND, text, remedy)


def _builds(client: Client, table: str) -> Builds:
    """Return the builds of a search table, to be looked at."""
    return Builds(client, table, TaskOrigin("", ""))


def _rebuild(table: str, plan: BuildPlan, also: str = "") -> str:
    """Return what builds the search table in use again, as it is."""
    asked = also if plan.chosen else f", index_kind {plan.options.kind}{also}"
    if plan.options.metric != IndexOptions.metric:
        asked += f", index_metric {plan.options.metric}"
    return f"trigger laion_ingest with shards empty{asked} and build_index on for table {table}"


def _damage(check: str, table: str, repairs: Sequence[ShardRepair]) -> Finding:
    shards = format_shards([repair.shard for repair in repairs])
    reason = repairs[0].reason
    summary = f"shards {shards} are {reason}: {repairs[0].why}"
    if len(repairs) > 1:
        summary += f" (shard {repairs[0].shard}; the others like it)"
    wanted = {"which": reason} if reason is Reason.STALE else {"shards": shards}
    return Finding(check, Outcome.FOUND, summary, backfill_command(table, **wanted))
