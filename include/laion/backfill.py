"""Which shards of a table need work, and why: the ledger compared with what the table holds.

    repairs = plan_backfill(client, BackfillRequest(table="laion400m"))
    conf = ingest_conf(client, request, repairs)   # what to trigger `laion_ingest` with, or None

Only ClickHouse is asked, so it works after the original run, or all of Airflow's database, is gone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from laion.clickhouse.client import Client
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.ledger.shard_facts import ShardFacts, last_load, read_shard_facts
from laion.clickhouse.ledger.shard_state import ShardState, Stage, StageState
from laion.clickhouse.schema import read_identity, table_comment
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import AUTO, kind_of
from laion.clickhouse.search_table.lease import Builds
from laion.datasets import load_profile
from laion.errors import BadRequest, NeverLoaded, UnknownDataset
from laion.shards import HeldShard, format_shards, parse_shards, shard_label


class Reason(StrEnum):
    """Why a shard needs work."""

    FAILED = ShardState.FAILED
    MISSING = ShardState.MISSING
    MISMATCHED = ShardState.MISMATCHED
    STALE = "stale"
    EXPLICIT = "explicit"


class Action(StrEnum):
    """What is done about it.

    The shard is loaded, or its part of the search table is built again (INDEX); or it is left to
    the run that is at work on it (WAIT), or to another backfill, because of `max_shards` (LATER).
    """

    LOAD = "load"
    INDEX = "index"
    WAIT = "wait"
    LATER = "later"


REASONS = (Reason.FAILED, Reason.MISSING, Reason.MISMATCHED, Reason.STALE)
WHICH = (*REASONS, "all")
QUIET_S = 1800
"""A run that wrote nothing to the ledger for this long is taken for dead. Were it alive after all,
its shards would be loaded twice, of which the later attempt stays."""
MAX_SHARDS = 50
RUN_PREFIX = "backfill_"
"""Runs of `laion_ingest` that a backfill has triggered are named so."""
MAX_ERROR_CHARS = 200

Indexed = dict[int, HeldShard]
"""By number: the shards that the search table was built from, as they were then."""


@dataclass(frozen=True)
class BackfillRequest:
    """What to look for in which table.

    `which` is one of WHICH. 'all' is every shard that was asked for before and is not right now;
    'missing' alone also counts shards of the dataset's manifest that nobody asked for yet.
    `shards`, such as "3,7-9", names them instead, whatever their state. `max_shards` bounds how
    many are loaded at once. `source` replaces the source of the last run. `run_id` is the run that
    is to load them: what that has claimed is not left to another one.
    """

    table: str
    which: str = "all"
    shards: str = ""
    max_shards: int = MAX_SHARDS
    quiet_s: float = QUIET_S
    source: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class ShardRepair:
    """A shard that needs work.

    `why` is a sentence for people, `action` what would be done.
    """

    shard: int
    reason: Reason
    why: str
    action: Action
    rows_expected: int
    rows_held: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_backfill(client: Client, request: BackfillRequest) -> list[ShardRepair]:
    """Return the shards that need work, by number; changes nothing.

    Raises BadRequest, BadShards, TableMismatch, ClickHouseError.
    """
    if table_comment(client, request.table) is not None:
        read_identity(client, request.table)
    facts = {fact.shard: fact for fact in read_shard_facts(client, request.table)}
    if request.shards:
        wanted = parse_shards(request.shards)
        found = [_explicit(facts.get(shard), shard) for shard in wanted]
    elif request.which in WHICH:
        found = list(_find_damage(client, request, facts))
    else:
        raise BadRequest(f"which: {request.which!r} is none of {', '.join(WHICH)}")
    if other := _other_backfill(facts, request):
        found = [_leave_to(other, repair) for repair in found]
    return _cap(sorted(found, key=lambda repair: repair.shard), request.max_shards)


def claim_shards(client: Client, request: BackfillRequest, repairs: Sequence[ShardRepair]) -> None:
    """Write into the ledger that the shards are planned by `request.run_id`, which is to load them.

    Until that run has begun, no other backfill of the table takes them, or any other.
    """
    run = last_load(client, request.table)
    due = [repair for repair in repairs if repair.action is Action.LOAD]
    if run is None or not due:
        return
    origin = TaskOrigin(run.dag_id, request.run_id)
    Ledger(client).append(
        [
            ShardEvent(
                request.table, repair.shard, run.dataset, origin, Stage.PLAN, StageState.PLANNED
            )
            for repair in due
        ]
    )


def shards_to_load(repairs: Sequence[ShardRepair]) -> str:
    """Return the shards to load as the param `shards` of `laion_ingest`; '' for none."""
    return format_shards([repair.shard for repair in repairs if repair.action is Action.LOAD])


def ingest_conf(
    client: Client, request: BackfillRequest, repairs: Sequence[ShardRepair]
) -> dict[str, Any] | None:
    """Return the params of a run of `laion_ingest` that does the repairs; None if none is due.

    Dataset, source and every choice are those of the last run that loaded into the table.
    Raises NeverLoaded, and BadRequest when that run's source had a password, which nobody keeps.
    """
    if not any(repair.action in (Action.LOAD, Action.INDEX) for repair in repairs):
        return None
    run = last_load(client, request.table)
    if run is None:
        raise NeverLoaded(
            f"no run in the ledger has loaded into table {request.table!r}, so its dataset and "
            "source are not known; trigger laion_ingest with the shards you want"
        )
    source = request.source or run.source
    if "***@" in source:
        raise BadRequest(
            f"source: that of run {run.run_id} is {source}; its password was not kept. Give the "
            "param `source` again"
        )
    conf = {
        **run.params,
        "dataset": run.dataset,
        "table": request.table,
        "source": source,
        "shards": shards_to_load(repairs),
        "tolerate_failed_shards": 0,
    }
    if (in_use := read_in_use(client, request.table)) is not None:
        # Otherwise the search table would be stale from now on. It stays what it is, whatever the
        # run that loaded was asked for.
        conf["build_index"] = True
        kind = AUTO if in_use.chosen else in_use.options.kind
        if kind != conf.get("index_kind"):
            conf["index_kind"] = kind
            conf["index_metric"] = in_use.options.metric
            conf["index_quantization"] = AUTO if in_use.chosen else in_use.options.quantization
    return conf


def backfill_command(table: str, **wanted: str) -> str:
    """Return the shell command that loads shards again: `shards` by number, or `which`."""
    conf = json.dumps({"table": table, **wanted, "dry_run": False})
    return f"airflow dags trigger laion_backfill --conf {shlex.quote(conf)}"


def format_plan(request: BackfillRequest, repairs: Sequence[ShardRepair]) -> str:
    """Return the repairs as a table of text."""
    if not repairs:
        return f"{request.table}: nothing to repair ({request.shards or request.which})."
    lines = [f"{'shard':<12} {'reason':<10} {'do':<5} {'expected':>11} {'held':>11}  why"]
    lines += [
        f"{shard_label(r.shard):<12} {r.reason:<10} {r.action:<5} {r.rows_expected:>11,} "
        f"{r.rows_held:>11,}  {r.why}"
        for r in repairs
    ]
    counts = {action: sum(repair.action == action for repair in repairs) for action in Action}
    told = ", ".join(f"{number} {action}" for action, number in counts.items() if number)
    return "\n".join([*lines, f"{request.table}: {told}."])


def _find_damage(
    client: Client, request: BackfillRequest, facts: dict[int, ShardFacts]
) -> Iterator[ShardRepair]:
    """Yield each shard once, with the first reason that holds."""
    indexed = _indexed(client, request.table)
    builder = Builds(client, request.table, TaskOrigin("", "")).holder()
    for fact in facts.values():
        for reason, judge in _JUDGES.items():
            if request.which not in (reason, "all"):
                continue
            why = judge(fact, indexed)
            if why:
                action = Action.INDEX if reason is Reason.STALE else Action.LOAD
                at_work = builder.run_id if builder and action is Action.INDEX else ""
                at_work = _other_run(fact, request) or at_work
                if at_work:
                    then = f" ({why})" if fact.is_finished else ""
                    why, action = f"run {at_work} is at work on it{then}", Action.WAIT
                rows = fact.published_rows, fact.held_rows
                yield ShardRepair(fact.shard, reason, why, action, *rows)
                break
    if request.which == Reason.MISSING:
        for shard in _manifest(client, request.table):
            if shard not in facts:
                why = "the dataset has it and no run has loaded it"
                yield ShardRepair(shard, Reason.MISSING, why, Action.LOAD, 0, 0)


def _other_run(fact: ShardFacts, request: BackfillRequest) -> str:
    run_id = fact.worked_on_by(request.quiet_s)
    return run_id if run_id != request.run_id else ""


def _other_backfill(facts: dict[int, ShardFacts], request: BackfillRequest) -> str:
    """Return a run of another backfill that is at work on the table; nothing without one."""
    runs = (_other_run(fact, request) for fact in facts.values())
    return next((run_id for run_id in runs if run_id.startswith(RUN_PREFIX)), "")


def _leave_to(run_id: str, repair: ShardRepair) -> ShardRepair:
    if repair.action is Action.WAIT:
        return repair
    why = f"run {run_id} is at work on this table ({repair.why})"
    return replace(repair, action=Action.WAIT, why=why)


def _why_failed(fact: ShardFacts, indexed: Indexed | None) -> str:
    if fact.state is not ShardState.FAILED:
        return ""
    old = "; an earlier publication is still in" if fact.held_rows else ""
    if not fact.last_failed:
        return f"its last attempt {_stopped(fact)}{old}"
    error = " ".join(fact.error.split())[:MAX_ERROR_CHARS]
    return f"its last attempt failed in {fact.last_stage}: {fact.error_class}: {error}{old}"


def _why_missing(fact: ShardFacts, indexed: Indexed | None) -> str:
    if not fact.is_missing:
        return ""
    if fact.is_published:
        return (
            f"run {fact.published_run_id} published {fact.published_rows:,} rows, and the table "
            "has none of them: its partition was dropped"
        )
    if fact.last_stage == Stage.PLAN:
        return f"run {fact.run_id} planned it and never began"
    return f"run {fact.run_id} {_stopped(fact)}"


def _stopped(fact: ShardFacts) -> str:
    if fact.was_killed:
        return f"stopped in the middle of '{fact.last_stage}': its worker was killed or lost"
    return f"stopped after '{fact.last_stage} {fact.last_state}'"


def _why_mismatched(fact: ShardFacts, indexed: Indexed | None) -> str:
    if not fact.is_mismatched:
        return ""
    if not fact.is_published:
        return f"the table holds {fact.held_rows:,} rows of it that no run has published"
    return (
        f"run {fact.published_run_id} published {fact.published_rows:,} rows, the table holds "
        f"{fact.held_rows:,}"
    )


def _why_stale(fact: ShardFacts, indexed: Indexed | None) -> str:
    if indexed is None:
        return ""
    if fact.shard not in indexed:
        return "it is not in the search table yet" if fact.held_rows else ""
    filled_from = indexed[fact.shard]
    if filled_from.rows != fact.held_rows:
        return (
            f"the search table was filled from {filled_from.rows:,} rows of it, the table holds "
            f"{fact.held_rows:,}"
        )
    if filled_from.attempt != fact.attempt:
        return f"the search table holds attempt {filled_from.attempt} of it, not {fact.attempt}"
    return ""


_JUDGES: dict[Reason, Callable[[ShardFacts, Indexed | None], str]] = {
    Reason.FAILED: _why_failed,
    Reason.MISSING: _why_missing,
    Reason.MISMATCHED: _why_mismatched,
    Reason.STALE: _why_stale,
}


def _explicit(fact: ShardFacts | None, shard: int) -> ShardRepair:
    rows = (fact.published_rows, fact.held_rows) if fact else (0, 0)
    return ShardRepair(shard, Reason.EXPLICIT, "you named it", Action.LOAD, *rows)


def _cap(repairs: list[ShardRepair], max_shards: int) -> list[ShardRepair]:
    capped, loads = [], 0
    for repair in repairs:
        loads += repair.action is Action.LOAD
        over = repair.action is Action.LOAD and loads > max_shards
        capped.append(replace(repair, action=Action.LATER) if over else repair)
    return capped


def _indexed(client: Client, table: str) -> Indexed | None:
    """Return what the search table was built from; None without one that could be stale."""
    plan = read_in_use(client, table)
    if plan is None or kind_of(plan.options).is_live:
        return None
    buckets = Builds(client, table, TaskOrigin("", "")).buckets(plan.build_id)
    return {held.shard: held for state in buckets.values() for held in state.shards}


def _manifest(client: Client, table: str) -> list[int]:
    """Return every shard of the table's dataset, as far as its profile says."""
    run = last_load(client, table)
    if run is None:
        return []
    try:
        profile = load_profile(run.dataset)
    except UnknownDataset:
        return []
    return profile.all_shards() if profile.shards is not None else []
