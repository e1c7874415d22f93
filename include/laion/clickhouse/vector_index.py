"""The search table: the base table's rows in few partitions, with a vector index on each vector.

It is built beside the one in use, bucket by bucket, and takes its place in one step, so searches
never see half: `begin_build`, `build_bucket` for each bucket, `laion.clickhouse.recall`, then
`publish_build`. Every step can be repeated; what is done already is not done again.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import replace

from laion.clickhouse.builds import BucketState, BuildPlan, Builds, Holder
from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.cluster import ensure_distributed, sync_replica
from laion.clickhouse.derived import CREATE_SETTINGS, derive, drop_derived, drop_however_large
from laion.clickhouse.identifiers import quote_identifier, quote_string, search_table
from laion.clickhouse.materialize import (
    build_indexes,
    count_parts,
    index_name,
    stop_building,
)
from laion.clickhouse.schema import column_types, read_identity, table_comment
from laion.clickhouse.server import read_server
from laion.clickhouse.sizing import IndexOptions, format_plan, plan_index
from laion.clickhouse.statements import statement
from laion.errors import ClickHouseBusy, IndexBuildFailed, SearchTableInUse, TableMismatch
from laion.shards import VECTORS

log = logging.getLogger(__name__)

Sources = dict[int, tuple[tuple[int, str, int], ...]]


def begin_build(
    builds: Builds, options: IndexOptions, memory_bytes: int | None = None
) -> tuple[BuildPlan, list[int]] | Holder:
    """Create the table under construction and return its plan and the buckets to build.

    Buckets that have not changed since the search table in use was built come from there, index
    and all. A build of this run that was interrupted goes on. While another run builds, returns
    that one instead.

    Raises ServerTooOld, IndexTooLarge, TableMismatch, SearchTableInUse, IndexBuildFailed.
    """
    client, table = builds.client, builds.table
    sync_replica(client, table)
    server = read_server(client, memory_bytes)
    dimension = read_identity(client, table).dimension
    check_replaceable(client, table)
    vectors = tuple(v for v in VECTORS if v in column_types(client, table))
    sources = builds.sources()
    rows = sum(source[2] for source in sources)
    if not rows:
        raise IndexBuildFailed(f"table {table!r} has no rows; load at least one shard first")
    sized = plan_index(rows, dimension, options, server, len(vectors))
    log.info("%s", format_plan(sized, rows, server.threads))
    in_use = read_plan(client, search_table(table))
    per_bucket = _shards_per_bucket(sources[-1][0] + 1, rows, options, in_use)
    by_bucket: Sources = {}
    for source in sources:
        by_bucket.setdefault(source[0] // per_bucket, ())
        by_bucket[source[0] // per_bucket] += (source,)
    plan = BuildPlan(
        build_id="",
        root="",
        dimension=dimension,
        vectors=vectors,
        shards_per_bucket=per_bucket,
        buckets=tuple(by_bucket),
        options=replace(sized.options, buckets=0, min_bucket_rows=0),
    )
    own, state = builds.of_run()
    goes_on = own is not None and state != "published" and own.layout == plan.layout
    holder = builds.claim(own.build_id if own and goes_on else "")
    if not builds.is_own(holder):
        return holder
    grows = in_use is not None and in_use.layout == plan.layout and _same_columns(client, table)
    root = in_use.root if in_use and grows else holder.build_id
    plan = replace(plan, build_id=holder.build_id, root=root)
    with builds.holding(plan.build_id):
        _drop_abandoned(builds, plan)
        _create_table(client, table, plan)
        builds.append(plan.build_id, "planned", plan)
        can_attach = grows and _can_attach(client, search_table(table), shadow_table(table, plan))
        to_build = _attach_unchanged(builds, plan, by_bucket, in_use if can_attach else None)
    return plan, to_build


def build_bucket(builds: Builds, plan: BuildPlan, bucket: int) -> BucketState:
    """Fill one bucket, merge it into one part and build its indexes.

    A bucket that is built from what the base table holds now is left as it is; a build of the
    index that a killed task has left running in the server is waited for.
    Raises IndexBuildLost, IndexBuildFailed, ClickHouseError.
    """
    client, shadow = builds.client, shadow_table(builds.table, plan)
    began = time.monotonic()
    with builds.holding(plan.build_id), typed_errors(f"build bucket {bucket} of {shadow}"):
        # Read before filling: a shard published meanwhile makes the bucket stale, never wrong.
        sources = _sources_of(builds, plan, bucket)
        state = builds.buckets(plan.build_id).get(bucket)
        if state is not None and _still_there(client, shadow, state, sources):
            log.info("Bucket %d is built already.", bucket)
            return state
        if state is None or state.state != "filled" or state.shards != sources:
            state = BucketState(bucket, "filling", plan.build_id, sources)
            builds.record_bucket(plan.build_id, state)
            _fill(client, builds.table, shadow, plan, bucket)
            state = replace(state, state="filled")
            builds.record_bucket(plan.build_id, state)
        filled = state

        def record_progress(share: float) -> None:
            seconds = time.monotonic() - began
            builds.record_bucket(plan.build_id, replace(filled, progress=share, seconds=seconds))

        build_indexes(client, shadow, plan.vectors, bucket, record_progress)
        parts = count_parts(client, shadow, bucket)
        if not parts.is_one_graph:
            raise IndexBuildFailed(
                f"{shadow}: bucket {bucket} is {parts.parts} parts, {parts.unindexed} without an "
                "index, and not one part with it; clear `build_index` to build the bucket again"
            )
        state = replace(
            state,
            state="built",
            progress=1.0,
            rows=parts.rows,
            # A shard replaced meanwhile may have had fewer rows.
            left_out=max(0, sum(source[2] for source in sources) - parts.rows),
            index_bytes=parts.index_bytes,
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
    client, target = builds.client, search_table(builds.table)
    shadow = shadow_table(builds.table, plan)
    buckets = builds.buckets(plan.build_id)
    in_use = read_plan(client, target)
    with builds.holding(plan.build_id), typed_errors(f"put {target} in place"):
        if in_use is None or in_use.build_id != plan.build_id:
            unbuilt = [b for b in plan.buckets if b not in buckets or not buckets[b].is_done]
            if unbuilt or builds.state(plan.build_id) != "accepted":
                raise IndexBuildFailed(
                    f"{shadow} is not ready: buckets {unbuilt} are not built, or its recall was "
                    "not accepted; clear `build_index` and what follows it"
                )
            check_replaceable(client, builds.table)
            client.command(statement("keep_graphs", table=shadow))
            swap = "rename_table" if in_use is None else "exchange_tables"
            client.command(statement(swap, shadow=shadow, table=target))
            ensure_distributed(client, target)
        # After an exchange, this is the table that was in use before.
        drop_derived(client, shadow)
        builds.append(plan.build_id, "published")
    return sum(bucket.rows for bucket in buckets.values())


def read_plan(client: Client, table: str) -> BuildPlan | None:
    """Return what a search table was built by, from its comment; None when there is no table.

    Raises TableMismatch when the table was not made by this package.
    """
    comment = table_comment(client, table)
    if comment is None:
        return None
    try:
        return BuildPlan.from_json(json.dumps(json.loads(comment)["laion"]["build"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TableMismatch(
            f"table {table!r} exists and was not made by this package; it is left alone. Rename "
            "it, or choose another name with the param `table`."
        ) from error


def shadow_table(table: str, plan: BuildPlan) -> str:
    """Return the name of the table under construction."""
    return f"{search_table(table)}_{plan.build_id}"


def check_replaceable(client: Client, table: str) -> None:
    """Refuse to replace a search table that is not ours or that feeds a materialized view.

    A plain view finds the new table by its name; a materialized view would go on watching the
    old one and get no rows. Raises TableMismatch, SearchTableInUse.
    """
    target = search_table(table)
    read_plan(client, target)
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


def _create_table(client: Client, table: str, plan: BuildPlan) -> None:
    shadow = shadow_table(table, plan)
    comment = json.dumps({"laion": {"search_of": table, "build": json.loads(plan.to_json())}})
    with typed_errors(f"create {shadow}"):
        client.command(
            statement(
                "create_search",
                shadow=shadow,
                literals={
                    **derive(client, table),
                    "shards_per_bucket": str(plan.shards_per_bucket),
                    "comment": quote_string(comment),
                },
            ),
            settings=CREATE_SETTINGS,
        )
        for vector in plan.vectors:
            client.command(
                statement(
                    "add_vector_index",
                    shadow=shadow,
                    index=index_name(vector),
                    column=vector,
                    literals={
                        "metric": quote_string(plan.options.metric),
                        "dimension": str(plan.dimension),
                        "quantization": quote_string(plan.options.quantization),
                        "m": str(plan.options.m),
                        "ef_construction": str(plan.options.ef_construction),
                    },
                )
            )


def _attach_unchanged(
    builds: Builds, plan: BuildPlan, sources: Sources, in_use: BuildPlan | None
) -> list[int]:
    """Take over from the table in use what has not changed; return the buckets to build."""
    client, shadow = builds.client, shadow_table(builds.table, plan)
    own = builds.buckets(plan.build_id)
    known = builds.buckets(in_use.build_id) if in_use else {}
    to_build = []
    for bucket in plan.buckets:
        old = known.get(bucket)
        if bucket in own and _still_there(client, shadow, own[bucket], sources[bucket]):
            continue
        if old is None or not old.is_done or old.shards != sources[bucket]:
            to_build.append(bucket)
            continue
        with typed_errors(f"attach bucket {bucket} to {shadow}"):
            alter = f"ALTER TABLE {quote_identifier(shadow)}"
            origin = quote_identifier(search_table(builds.table))
            drop_however_large(client, f"{alter} DROP PARTITION {bucket}")
            client.command(f"{alter} ATTACH PARTITION {bucket} FROM {origin}")
        parts = count_parts(client, shadow, bucket)
        if not parts.are_of(old):
            to_build.append(bucket)
            continue
        builds.record_bucket(plan.build_id, replace(old, state="attached", seconds=0.0))
    log.info(
        "%d buckets of %d shards: %d to build, the others are as they were",
        len(plan.buckets),
        plan.shards_per_bucket,
        len(to_build),
    )
    return to_build


def _still_there(
    client: Client, shadow: str, state: BucketState, sources: tuple[tuple[int, str, int], ...]
) -> bool:
    """Return whether a bucket was built from these sources and is in the table."""
    if not state.is_done or state.shards != sources:
        return False
    return count_parts(client, shadow, state.bucket).are_of(state)


def _fill(client: Client, table: str, shadow: str, plan: BuildPlan, bucket: int) -> None:
    """Copy the bucket's rows and merge them: every part has a graph, and each is searched."""
    alter = f"ALTER TABLE {quote_identifier(shadow)}"
    stop_building(client, shadow, bucket)
    drop_however_large(client, f"{alter} DROP PARTITION {bucket}")
    usable = (f"isFinite(L2Norm({v})) AND L2Norm({v}) > 0" for v in plan.vectors)
    first, last = plan.shards_of(bucket)
    client.command(
        statement(
            "fill_search", shadow=shadow, table=table, literals={"usable": " AND ".join(usable)}
        ),
        parameters={"first": first, "last": last},
    )
    if count_parts(client, shadow, bucket).parts > 1:
        client.command(
            f"OPTIMIZE TABLE {quote_identifier(shadow)} PARTITION {bucket} FINAL",
            # A server without a free thread for the merge otherwise does nothing, in silence.
            settings={"optimize_throw_if_noop": 1},
        )
        if (parts := count_parts(client, shadow, bucket).parts) > 1:
            raise ClickHouseBusy(f"ClickHouse left bucket {bucket} of {shadow} in {parts} parts")


def _sources_of(builds: Builds, plan: BuildPlan, bucket: int) -> tuple[tuple[int, str, int], ...]:
    first, last = plan.shards_of(bucket)
    return tuple(source for source in builds.sources() if first <= source[0] <= last)


def _drop_abandoned(builds: Builds, plan: BuildPlan) -> None:
    """Drop the tables that other builds have left: none of them has the lease."""
    parameters = {
        "table": builds.table,
        "search": search_table(builds.table),
        "build_id": plan.build_id,
    }
    with typed_errors("drop what earlier builds have left"):
        left = builds.client.query(statement("abandoned_builds"), parameters=parameters)
        for (name,) in left.result_rows:
            log.info("Dropping %s, which a build that did not end has left.", name)
            drop_derived(builds.client, name)


def _can_attach(client: Client, in_use: str, shadow: str) -> bool:
    """Return whether partitions can go from one search table to another, indexes included.

    A search table of an earlier release may have its owner's indexes instead of those planned.
    """

    def structure(table: str) -> tuple[object, ...]:
        found = client.query(statement("index_definitions"), parameters={"table": table})
        return derive(client, table)["placement"], *found.result_rows

    with typed_errors(f"compare {shadow} with {in_use}"):
        return structure(in_use) == structure(shadow)


def _same_columns(client: Client, table: str) -> bool:
    return list(column_types(client, table).items()) == list(
        column_types(client, search_table(table)).items()
    )
