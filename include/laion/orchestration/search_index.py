"""The bodies of the tasks that build, measure and publish the search table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException

from laion.clickhouse.identifiers import near_view
from laion.clickhouse.schema import ensure_ledger
from laion.clickhouse.search_table.build import (
    begin_build,
    build_bucket,
    held_rows,
    publish_build,
)
from laion.clickhouse.search_table.calibration import calibrate
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, BuildState
from laion.clickhouse.search_table.recall import measure_recall
from laion.clickhouse.server import read_server
from laion.datasets import load_profile
from laion.errors import IndexBuildFailed
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.lineage import SEARCH_TABLE, tell
from laion.orchestration.origin import fails_for_good, task_origin
from laion.orchestration.params import IngestRequest
from laion.settings import get_settings

log = logging.getLogger(__name__)

WAIT_FOR_BUILD_S = 30


def plan() -> list[int]:
    """Begin a build of the search table and return the buckets to build.

    Waits, without holding a worker, while another run builds the same table.
    """
    settings = get_settings()
    with _builds() as (builds, request):
        options = request.index_options(settings.search_buckets)
        assert options is not None
        begun = begin_build(
            builds, options, settings.clickhouse_memory, takes_over=not request.rebuild_index
        )
    if isinstance(begun, Holder):
        log.info("Waiting: run %s is building this search table.", begun.run_id)
        later = datetime.now(UTC) + timedelta(seconds=WAIT_FOR_BUILD_S)
        raise AirflowRescheduleException(later)  # type: ignore[no-untyped-call]
    return begun[1]


def build(bucket: int) -> dict[str, Any]:
    """Build one bucket of the run's search table."""
    cast(dict[str, Any], get_current_context())["bucket_key"] = f"bucket {bucket:02d}"
    with _builds() as (builds, _):
        own, is_in_use = _own_build(builds)
        if is_in_use:
            return {}
        state = build_bucket(builds, own, bucket)
    return {"rows": state.rows, "left_out": state.left_out, "index_bytes": state.index_bytes}


def measure() -> dict[str, float]:
    """Measure the recall of the run's search table, the one under construction or in use."""
    settings = get_settings()
    with _builds() as (builds, request):
        own, is_in_use = _own_build(builds)
        if is_in_use:
            return {}
        recalls = measure_recall(
            builds,
            own,
            target=request.recall_target,
            queries=settings.recall_queries,
            budget=settings.recall_budget,
        )
    return {f"{recall.column} {recall.kind}": recall.at_10 for recall in recalls}


def publish() -> dict[str, Any]:
    """Put the run's search table in the place of the one in use.

    Returns its rows, the statement by which the next task checks that it is whole, and, where the
    dataset has many more rows, what the build says of a search table of all.
    """
    settings = get_settings()
    with _builds() as (builds, request):
        own, is_in_use = _own_build(builds)
        tell(SEARCH_TABLE, table=near_view(request.table), dataset=request.dataset)
        rows = held_rows(builds, own) if is_in_use else publish_build(builds, own)
        server = read_server(builds.client, settings.clickhouse_memory)
        total = load_profile(request.dataset).rows_total
        foreseen = calibrate(builds, own, total, server) or ""
    if foreseen:
        log.info("What this build says of the whole dataset:\n%s", foreseen)
    check = kind_of(own.options).check(request.table, own, rows)
    return {"rows": rows, "check": check, "calibration": foreseen}


@contextmanager
def _builds() -> Iterator[tuple[Builds, IngestRequest]]:
    """Yield the builds of the run's search table, unless the run asks for none."""
    context = get_current_context()
    request = IngestRequest.from_params(context["params"])
    if not request.build_index:
        raise AirflowSkipException("the run was started with build_index off")
    with clickhouse_client() as client:
        ensure_ledger(client)
        builds = Builds(client, request.table, task_origin(context))
        try:
            yield builds, request
        except Exception as error:
            holder = builds.holder()
            if fails_for_good(error) and holder is not None and builds.is_own(holder):
                builds.append(holder.build_id, BuildState.FAILED)
            raise


def _own_build(builds: Builds) -> tuple[BuildPlan, bool]:
    """Return the build of this run, and whether it is in use already: nothing is to be done.

    Raises IndexBuildFailed when the run has none, or another build has taken its place since.
    """
    own, state = builds.of_run()
    if own is None:
        raise IndexBuildFailed("this run has begun no build; clear its task `plan_index`")
    if state != BuildState.PUBLISHED:
        return own, False
    in_use = read_in_use(builds.client, builds.table)
    if in_use is None or in_use.build_id != own.build_id:
        raise IndexBuildFailed(
            f"build {own.build_id} was published and has been replaced since; to build again, "
            "clear `plan_index` with what follows it"
        )
    log.info("Build %s is in use already; nothing to do.", own.build_id)
    return own, True
