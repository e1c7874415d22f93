"""Builds a search table beside the one in use, bucket by bucket, and puts it in its place.

Searches never see half: `begin_build`, `build_bucket` for each bucket, `measure_recall`, then
`publish_build`. Every step can be repeated; what is done already is not done again. What a table
of each kind is made of is in `kinds`.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.cluster import sync_replica
from laion.clickhouse.derived import drop_derived
from laion.clickhouse.identifiers import search_table
from laion.clickhouse.schema import read_identity
from laion.clickhouse.search_table.in_use import check_view_names, read_in_use, read_state
from laion.clickhouse.search_table.kinds import OFFERS, kind_of, load_kind
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import (
    OVER,
    BucketStage,
    BucketState,
    BuildPlan,
    BuildState,
    IndexOptions,
)
from laion.clickhouse.search_table.profiles import read_profile
from laion.clickhouse.search_table.sizing import format_plan, plan_index
from laion.clickhouse.search_table.views import publish_views
from laion.clickhouse.server import read_server
from laion.clickhouse.statements import statement
from laion.errors import IndexBuildFailed, SearchTableInUse
from laion.shards import HeldShard

log = logging.getLogger(__name__)

Sources = dict[int, tuple[HeldShard, ...]]


def begin_build(
    builds: Builds,
    options: IndexOptions,
    memory_bytes: int | None = None,
    *,
    takes_over: bool = True,
) -> tuple[BuildPlan, list[int]] | Holder:
    """Create the table under construction and return its plan and the buckets to build.

    Buckets that have not changed since the search table in use was built come from there, index
    and all, if it `takes_over`. A build of this run that was interrupted goes on. While another run
    builds, returns that one instead.

    Raises ServerTooOld, BadRequest, IndexTooLarge, TableMismatch, SearchTableInUse,
    IndexBuildFailed.
    """
    client, table = builds.client, builds.table
    sync_replica(client, table)
    server = read_server(client, memory_bytes)
    vectors = read_identity(client, table).vectors
    check_replaceable(client, table)
    check_view_names(client, table, vectors)
    sources = builds.sources()
    rows = sum(source.rows for source in sources)
    if not rows:
        raise IndexBuildFailed(f"table {table!r} has no rows; load at least one shard first")
    in_use = read_in_use(client, table)
    if in_use is not None and takes_over and not options.parameters:
        parameters = kind_of(in_use.options).kept_parameters(rows, in_use.options)
        options = replace(options, parameters=parameters)
    sized = plan_index(rows, vectors, options, server, in_use.options.kind if in_use else "")
    log.info("%s", format_plan(sized, rows, server.threads))
    kind = kind_of(sized.options)
    options = replace(options, buckets=min(options.buckets, kind.most_buckets(rows, sized.options)))
    per_bucket = _shards_per_bucket(sources[-1].shard + 1, rows, options, in_use)
    by_bucket: Sources = {}
    for source in sources:
        bucket = source.shard // per_bucket
        by_bucket[bucket] = (*by_bucket.get(bucket, ()), source)
    plan = BuildPlan(
        build_id="",
        root="",
        vectors=vectors,
        shards_per_bucket=per_bucket,
        buckets=tuple(by_bucket),
        options=replace(sized.options, buckets=0, min_bucket_rows=0),
        chosen=sized.choice,
    )
    kind.check_names(client, table)
    own, state = builds.of_run()
    is_over = own is not None and in_use is not None and own.build_id == in_use.build_id
    goes_on = own and not is_over and state != BuildState.PUBLISHED and own.layout == plan.layout
    if own and is_over and state != BuildState.PUBLISHED:
        # Killed when it was in place already: its tables are those in use, and not to be filled.
        builds.append(own.build_id, BuildState.PUBLISHED)
    elif own and not goes_on and state not in OVER:
        # Shards came since that it has no room for: its tables are of another layout.
        builds.append(own.build_id, BuildState.WITHDRAWN)
    holder = builds.claim(own.build_id if own and goes_on else "")
    if not builds.is_own(holder):
        return holder
    alike = in_use
    if in_use is None or not takes_over or in_use.layout != plan.layout:
        alike = None
    if alike is not None and not kind.has_same_columns(client, table, alike):
        alike = None
    root = alike.root if alike else holder.build_id
    plan = replace(plan, build_id=holder.build_id, root=root)
    with builds.holding(plan.build_id):
        _drop_abandoned(builds, plan)
        kind.create(client, table, plan)
        builds.append(plan.build_id, BuildState.PLANNED, plan)
        if alike is not None and not kind.can_take_over(client, table, plan):
            alike = None
        to_build = _take_over_unchanged(builds, plan, by_bucket, alike)
    return plan, to_build


def build_bucket(builds: Builds, plan: BuildPlan, bucket: int) -> BucketState:
    """Fill one bucket and build its index.

    A bucket that is built from what the base table holds now is left as it is; a build of the
    index that a killed task has left running in the server is waited for.
    Raises IndexBuildLost, IndexBuildFailed, ClickHouseError.
    """
    client, table, kind = builds.client, builds.table, kind_of(plan.options)
    place = kind.place(table, plan, in_use=False)
    began = time.monotonic()
    with builds.holding(plan.build_id), typed_errors(f"build bucket {bucket} of {place}"):
        # Read before filling: a shard published meanwhile makes the bucket stale, never wrong.
        sources = _sources_of(builds, plan, bucket)
        state = builds.buckets(plan.build_id).get(bucket)
        if state is not None and _still_there(client, plan, place, state, sources):
            log.info("Bucket %d is built already.", bucket)
            return state
        if state is None or state.state != BucketStage.FILLED or state.shards != sources:
            state = BucketState(bucket, BucketStage.FILLING, plan.build_id, sources)
            builds.record_bucket(plan.build_id, state)
            kind.fill(client, table, plan, bucket)
            state = replace(state, state=BucketStage.FILLED)
            builds.record_bucket(plan.build_id, state)
        filled = state

        def record_progress(share: float) -> None:
            seconds = time.monotonic() - began
            builds.record_bucket(plan.build_id, replace(filled, progress=share, seconds=seconds))

        kind.build_index(client, table, plan, bucket, record_progress)
        contents = kind.contents(client, place, plan, bucket)
        if contents.problem:
            raise IndexBuildFailed(
                f"{place}: bucket {bucket} is {contents.problem}, and not one part with it; clear "
                "`build_index` to build the bucket again"
            )
        state = replace(
            state,
            state=BucketStage.BUILT,
            progress=1.0,
            rows=contents.rows,
            # A shard replaced meanwhile may have had fewer rows.
            left_out=max(0, sum(source.rows for source in sources) - contents.rows),
            index_bytes=contents.index_bytes,
            seconds=time.monotonic() - began,
        )
        builds.record_bucket(plan.build_id, state)
    log.info(
        "Bucket %d: %d rows indexed, %d left out, %d bytes of index, %.1f s",
        bucket,
        state.rows,
        state.left_out,
        state.index_bytes,
        state.seconds,
    )
    return state


def publish_build(builds: Builds, plan: BuildPlan) -> int:
    """Put an accepted build in the place of the search table in use; return its rows.

    Raises IndexBuildFailed when buckets are missing or the recall was not accepted,
    IndexBuildLost, SearchTableInUse.
    """
    client, table, kind = builds.client, builds.table, kind_of(plan.options)
    place = kind.place(table, plan, in_use=False)
    buckets = builds.buckets(plan.build_id)
    in_use = read_in_use(client, table)
    target = kind.place(table, plan, in_use=True)
    with builds.holding(plan.build_id), typed_errors(f"put {target} in place"):
        if in_use is None or in_use.build_id != plan.build_id:
            unbuilt = [b for b in plan.buckets if b not in buckets or not buckets[b].is_done]
            if unbuilt or builds.state(plan.build_id) != BuildState.ACCEPTED:
                raise IndexBuildFailed(
                    f"{place} is not ready: buckets {unbuilt} are not built, or its recall was "
                    "not accepted; clear `build_index` and what follows it"
                )
            check_replaceable(client, table)
        # All of it can have been begun already.
        kind.publish(client, table, plan)
        profiles = {vector: read_profile(client, table, vector, plan) for vector in plan.vectors}
        publish_views(client, table, plan, profiles)
        for other in OFFERS.keys() - {plan.options.kind}:
            load_kind(other).retire(client, table)
        _drop_abandoned(builds)
        builds.append(plan.build_id, BuildState.PUBLISHED)
    return held_rows(builds, plan)


def held_rows(builds: Builds, plan: BuildPlan) -> int:
    """Return the rows of a build."""
    return sum(bucket.rows for bucket in builds.buckets(plan.build_id).values())


def check_replaceable(client: Client, table: str) -> None:
    """Refuse to replace a search table that is not ours or that feeds a materialized view.

    A plain view finds the new table by its name; a materialized view would go on watching the
    old one and get no rows. Raises TableMismatch, SearchTableInUse.
    """
    target = search_table(table)
    read_in_use(client, table)
    with typed_errors(f"look for views on {target}"):
        views = client.query(statement("attached_views"), parameters={"table": target}).result_rows
    if views:
        raise SearchTableInUse(
            f"materialized view {', '.join(row[0] for row in views)} reads {target!r}, which is "
            "replaced as a whole by each build; the view would silently stop receiving rows. "
            f"Attach it to the base table {table!r}, or use a plain view."
        )


def _shards_per_bucket(
    shards: int, rows: int, options: IndexOptions, in_use: BuildPlan | None
) -> int:
    """Keep the buckets of the table in use until there would be twice as many as wanted."""
    wanted = max(1, min(options.buckets, rows // options.min_bucket_rows))
    if in_use is not None and math.ceil(shards / in_use.shards_per_bucket) <= 2 * wanted:
        return in_use.shards_per_bucket
    return math.ceil(shards / wanted)


def _take_over_unchanged(
    builds: Builds, plan: BuildPlan, sources: Sources, in_use: BuildPlan | None
) -> list[int]:
    """Take over from the table in use what has not changed; return the buckets to build."""
    client, table, kind = builds.client, builds.table, kind_of(plan.options)
    place = kind.place(table, plan, in_use=False)
    own = builds.buckets(plan.build_id)
    known = builds.buckets(in_use.build_id) if in_use else {}
    to_build = []
    for bucket in plan.buckets:
        old = known.get(bucket)
        if bucket in own and _still_there(client, plan, place, own[bucket], sources[bucket]):
            continue
        if old is None or not old.is_done or old.shards != sources[bucket]:
            to_build.append(bucket)
            continue
        assert in_use is not None
        kind.take_over(client, table, plan, in_use, bucket)
        if not kind.contents(client, place, plan, bucket).are_of(old):
            to_build.append(bucket)
            continue
        builds.record_bucket(plan.build_id, replace(old, state=BucketStage.ATTACHED, seconds=0.0))
    log.info(
        "%d buckets of %d shards: %d to build, the others are as they were",
        len(plan.buckets),
        plan.shards_per_bucket,
        len(to_build),
    )
    return to_build


def _still_there(
    client: Client,
    plan: BuildPlan,
    place: str,
    state: BucketState,
    sources: tuple[HeldShard, ...],
) -> bool:
    """Return whether a bucket was built from these sources and is in the table."""
    if not state.is_done or state.shards != sources:
        return False
    kind = kind_of(plan.options)
    return kind.contents(client, place, plan, state.bucket).are_of(state)


def _sources_of(builds: Builds, plan: BuildPlan, bucket: int) -> tuple[HeldShard, ...]:
    first, last = plan.shards_of(bucket)
    return tuple(source for source in builds.sources() if first <= source.shard <= last)


def _drop_abandoned(builds: Builds, plan: BuildPlan | None = None) -> None:
    """Drop the tables that builds have made, but for those under construction and searched.

    Searched are the build in use, and any other of which a view is still, or already. Once a build
    is in place, a table by the name that it was built under is the one before it.
    """
    client, table = builds.client, builds.table
    wanted = kind_of(plan.options).tables(table, plan, in_use=False) if plan else set()
    for searched in read_state(client, table).plans:
        wanted |= kind_of(searched.options).tables(table, searched, in_use=True)
    with typed_errors("drop what earlier builds have left"):
        made = read_rows(client, "build_tables", table=table, search=search_table(table))
        for name in (row["name"] for row in made if row["name"] not in wanted):
            log.info("Dropping %s, which a build has left that is not in use.", name)
            drop_derived(client, name)
