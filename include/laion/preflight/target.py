"""Can ClickHouse take what the run brings: version, table, disk, memory, settings, grants?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from laion.clickhouse.client import Client
from laion.clickhouse.derived import check_publishable
from laion.clickhouse.schema import table_exists
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.kind import SizedPlan
from laion.clickhouse.search_table.sizing import plan_index
from laion.clickhouse.server import (
    ServerFacts,
    limiting_settings,
    missing_grants,
    too_old,
)
from laion.errors import BadRequest, ClickHouseError, IndexTooLarge, ServerTooOld
from laion.preflight.report import Line, Verdict
from laion.preflight.run import Run
from laion.units import format_gb

METADATA_ROW_BYTES = 200
"""What a row takes in ClickHouse beside its vectors: an estimate."""

LOW_MEMORY_BYTES = 2_000_000_000


def check_base_table(run: Run, client: Client) -> Iterator[Line]:
    """Try what publishing does to the base table, which its owner may have altered."""
    if not table_exists(client, run.table):
        return
    try:
        check_publishable(client, run.table, tuple(run.dimensions))
    except ClickHouseError as error:
        yield Line("base table", "takes shards", "altered", Verdict.PROBLEM, str(error))
    else:
        yield Line("base table", "takes shards", run.table)


def check_version(run: Run, server: ServerFacts) -> Line:
    found = f"ClickHouse {server.version}"
    if run.index is None or not server.is_old:
        return Line("server", "", found)
    return Line("server", "", found, Verdict.PROBLEM, too_old(server))


def check_disk(
    run: Run,
    server: ServerFacts,
    kept: str,
    rows: dict[int, int | None],
    held: dict[int, int],
) -> Line:
    """Compare free disk with what is new: a shard that is replaced needs no more than before."""
    free = server.free_bytes
    per_row = run.row_bytes + METADATA_ROW_BYTES
    table = sum(max(0, (count or 0) - held.get(n, 0)) for n, count in rows.items()) * per_row
    needed, parts = table, f"{format_gb(table)} for the table"
    if (plan := _planned(run, server, {**held, **rows}, kept)) is not None:
        needed += plan.estimate.disk_bytes
        if kind_of(plan.options).copies_rows:
            needed += sum(count or 0 for count in {**held, **rows}.values()) * per_row
        parts = f"{format_gb(needed)} for table and search table"
    if free is None:
        return Line(
            "ClickHouse disk", parts, "not told", Verdict.WARNING, "The user may not read it."
        )
    found = f"{format_gb(free)} free"
    if needed <= free:
        return Line("ClickHouse disk", parts, found)
    if table <= free and kept:
        return Line(
            "ClickHouse disk",
            parts,
            found,
            Verdict.WARNING,
            "Enough only if most of the present search table stays as it is.",
        )
    return Line(
        "ClickHouse disk",
        parts,
        found,
        Verdict.PROBLEM,
        "Load fewer shards, start with build_index off, or give the server more disk.",
    )


def check_index(
    run: Run, server: ServerFacts, rows: Mapping[int, int | None], kept: str
) -> Iterator[Line]:
    """Compare what the search table is to be with the server; `kept` is the kind in use."""
    if run.index is None:
        return
    # What cannot be built is refused though nothing is known of the rows yet.
    total = sum(count or 0 for count in rows.values())
    memory = "not told" if server.memory_bytes is None else format_gb(server.memory_bytes)
    try:
        plan = plan_index(total, run.dimensions, run.index, server, kept)
    except (BadRequest, IndexTooLarge, ServerTooOld) as error:
        yield Line("index memory", f"{total:,} rows", memory, Verdict.PROBLEM, str(error))
        return
    if not total:
        return
    needs, kind = plan.estimate, plan.options.kind
    if needs.memory_bytes:
        needed = f"{format_gb(needs.memory_bytes)} as {plan.options.quantization}"
    elif needs.disk_bytes:
        needed = f"none; {format_gb(needs.disk_bytes)} of disk as {plan.options.quantization}"
    else:
        needed = "none; every row is compared"
    note = " ".join(filter(None, (plan.choice, *plan.notes)))
    verdict = Verdict.WARNING if plan.notes else Verdict.OK
    yield Line("index memory", f"{kind}: {needed}", memory, verdict, note)


def _planned(
    run: Run, server: ServerFacts, rows: Mapping[int, int | None], kept: str
) -> SizedPlan | None:
    """Return what the search table is to be; None without one that can be."""
    total = sum(count or 0 for count in rows.values())
    if run.index is None or not total:
        return None
    with suppress(BadRequest, IndexTooLarge, ServerTooOld):
        return plan_index(total, run.dimensions, run.index, server, kept)
    return None


def check_settings(client: Client) -> Iterator[Line]:
    limits = limiting_settings(client)
    if limits.get("readonly"):
        yield Line(
            "readonly",
            "0",
            str(limits["readonly"]),
            Verdict.PROBLEM,
            "The user of the Airflow connection may only read.",
        )
    if seconds := limits.get("max_execution_time"):
        yield Line(
            "max_execution_time",
            "0",
            f"{seconds:,} s",
            Verdict.WARNING,
            "A load or an index build that takes longer is ended. Set it to 0 for this user.",
        )
    memory = limits.get("max_memory_usage")
    if memory is not None and memory < LOW_MEMORY_BYTES:
        yield Line(
            "max_memory_usage",
            format_gb(LOW_MEMORY_BYTES),
            format_gb(memory),
            Verdict.WARNING,
            "A load may be ended for want of memory. Raise it for this user.",
        )


def check_grants(client: Client) -> Line:
    missing = missing_grants(client)
    if missing is None:
        return Line("grants", "", "not told", Verdict.WARNING, "The server cannot check grants.")
    if not missing:
        return Line("grants", "", "all that are needed")
    lacking = ", ".join(missing)
    return Line(
        "grants",
        lacking,
        "not granted",
        Verdict.PROBLEM,
        f"Let an administrator run: GRANT {lacking} ON <database>.* TO <user>",
    )
