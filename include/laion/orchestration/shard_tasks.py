"""The bodies of a shard's tasks: plain library calls, with the ledger around them."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException

from laion.clickhouse.derived import drop_derived
from laion.clickhouse.ledger import Ledger, ShardEvent
from laion.clickhouse.ledger.shard_state import Stage, StageState
from laion.clickhouse.schema import table_exists
from laion.clickhouse.shards.load import load_shard
from laion.clickhouse.shards.publish import (
    is_already_published,
    publish_shard,
)
from laion.clickhouse.shards.pull import pull_shard
from laion.convert import Rules, convert_shard, inspect_shard
from laion.download import Progress, changed_files, download_shard
from laion.errors import (
    AttemptSuperseded,
    ClickHouseError,
    ValidationFailed,
)
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.context import download_options, staging_access, staging_area
from laion.orchestration.leftovers import discard_attempt
from laion.orchestration.lineage import tell_shard
from laion.orchestration.origin import task_origin
from laion.orchestration.params import IngestRequest
from laion.orchestration.waiting_room import find_room, freeing_on_final_failure, take_over
from laion.shards import (
    ShardFiles,
    ShardParquet,
    ShardSpec,
    StagedShard,
)
from laion.storage import StagingArea, Workspace
from laion.urls import is_s3

log = logging.getLogger(__name__)

COME_BACK_AFTER_S = 10
ATTEMPT_BYTES = 4


def download(spec_json: dict[str, Any]) -> dict[str, Any]:
    """Fetch a shard's files into the staging area (a `file://` source is left where it is).

    Goes on with what earlier tries of this run have fetched, be they killed ones. Waits while the
    staging area is full, for a minute at a time, then lets others have the worker.
    """
    spec = ShardSpec.from_json(spec_json)
    area = staging_area()
    attempt = secrets.token_hex(ATTEMPT_BYTES)
    with _shard_task(spec, Stage.DOWNLOAD, attempt) as (ledger, start):
        if not (take_over(ledger, area, start) or find_room(ledger, area, start)):
            later = datetime.now(UTC) + timedelta(seconds=COME_BACK_AFTER_S)
            raise AirflowRescheduleException(later)  # type: ignore[no-untyped-call]
        with (
            freeing_on_final_failure(ledger, area, start),
            ledger.record_stage(start) as result,
            area.workspace(spec.table, spec.shard, attempt, resume=True) as work,
        ):
            progress = Progress(spec.label, lambda size: _record_progress(ledger, start, size))
            options = download_options(url for urls in spec.urls.values() for url in urls)
            files = download_shard(spec, attempt, work.directory, options, progress, work.store)
            log.info("%s", progress.describe())
            for role in changed_files(ledger.last_files(spec.table, spec.shard), files.origins):
                log.warning("%s: %s is another file than the last time.", spec.label, role)
            result.bytes, result.files = sum(files.sizes.values()), json.dumps(files.origins)
            result.rows_expected = inspect_shard(_bring(files, work))
    return files.to_json()


def convert(files_json: dict[str, Any]) -> dict[str, Any]:
    """Turn a shard's files into one checked Parquet file; fetch those that are gone again."""
    files, area = ShardFiles.from_json(files_json), staging_area()
    spec = files.spec
    if _is_gone(area, spec, files.attempt):
        files = ShardFiles.from_json(download(spec.to_json()))
    request = IngestRequest.from_params(get_current_context()["params"])
    with (
        _shard_task(spec, Stage.CONVERT, files.attempt) as (ledger, start),
        freeing_on_final_failure(ledger, area, start),
        ledger.record_stage(start) as result,
        area.workspace(spec.table, spec.shard, files.attempt) as work,
    ):
        rules = Rules(request.max_bad_vectors, request.strict_alignment, request.accept_misaligned)
        target = work.directory / f"{spec.shard}.parquet"
        parquet = convert_shard(_bring(files, work), target, rules)
        parquet = replace(parquet, path=work.store(target))
        result.rows_expected, result.bytes = parquet.rows, parquet.size
    return parquet.to_json()


def load(parquet_json: dict[str, Any]) -> dict[str, Any]:
    """Load a shard's Parquet file into the staging table of its attempt; make a gone one again."""
    parquet, area = ShardParquet.from_json(parquet_json), staging_area()
    if _is_gone(area, parquet.spec, parquet.attempt):
        parquet = ShardParquet.from_json(convert(download(parquet.spec.to_json())))
    with (
        _shard_task(parquet.spec, Stage.LOAD, parquet.attempt) as (ledger, start),
        freeing_on_final_failure(ledger, area, start),
        ledger.record_stage(start) as result,
    ):
        try_number = start.origin.try_number
        if is_s3(parquet.path):
            access = staging_access()
            staged = pull_shard(ledger.client, parquet, access, try_number=try_number)
        else:
            staged = load_shard(ledger.client, parquet, try_number=try_number)
        result.rows_expected, result.rows_loaded = parquet.rows, staged.rows_written
        result.bytes = parquet.size
    return staged.to_json()


def validate(staged_json: dict[str, Any]) -> int:
    """Verify a staged shard, publish it in one step, clean up; return its rows.

    A shard that a later attempt has published meanwhile is left as that attempt made it. One whose
    staging table is gone is loaded again.
    """
    staged = StagedShard.from_json(staged_json)
    spec, attempt, area = staged.parquet.spec, staged.parquet.attempt, staging_area()
    keep = IngestRequest.from_params(get_current_context()["params"]).keep_parquet
    tell_shard(spec, attempt=attempt, rows=staged.parquet.rows)
    with _shard_task(spec, Stage.VALIDATE, attempt) as (ledger, start):
        client = ledger.client
        if not table_exists(client, staged.staging_table):
            if not is_already_published(client, ledger, staged):
                log.warning("%s: %s is gone; loading it again.", spec.label, staged.staging_table)
                return validate(load(staged.parquet.to_json()))
            log.info("%s: this attempt is published already; nothing to do.", spec.label)
            return staged.parquet.rows
        try:
            with (
                freeing_on_final_failure(ledger, area, start),
                ledger.record_stage(start) as result,
            ):
                contents = publish_shard(client, ledger, staged)
                result.rows_expected = staged.parquet.rows
                result.rows_loaded, result.hash = contents.rows, contents.hash
            published = replace(
                start, stage=Stage.PUBLISH, state=StageState.DONE, **result.__dict__
            )
            ledger.append([published])
            if keep:
                kept = area.keep(staged.parquet.path, spec.table)
                log.info("%s: kept as %s", spec.label, kept)
        except AttemptSuperseded as superseded:
            log.warning("%s", superseded)
        except ValidationFailed:
            # The next try finds it gone.
            drop_derived(client, staged.staging_table)
            raise
        discard_attempt(ledger, area, spec.table, spec.shard, attempt)
    return staged.parquet.rows


def _record_progress(ledger: Ledger, start: ShardEvent, size: int) -> None:
    """Write how far a download is; a ledger that does not answer just now costs no download."""
    try:
        ledger.append([replace(start, bytes=size)])
    except ClickHouseError as error:
        log.warning("The progress is not in the ledger: %s", error)


@contextmanager
def _shard_task(spec: ShardSpec, stage: Stage, attempt: str) -> Iterator[tuple[Ledger, ShardEvent]]:
    """Name the mapped instance after its shard; yield the ledger and the event of this stage."""
    context = get_current_context()
    cast(dict[str, Any], context).update(shard_key=spec.label, shard_number=spec.shard)
    with clickhouse_client() as client:
        start = ShardEvent(
            table=spec.table,
            shard=spec.shard,
            dataset=spec.dataset,
            origin=task_origin(context),
            stage=stage,
            state=StageState.STARTED,
            attempt=attempt,
            rows_expected=spec.rows or 0,
        )
        yield Ledger(client), start


def _is_gone(area: StagingArea, spec: ShardSpec, attempt: str) -> bool:
    """Return whether an attempt has left the staging area, as it does when it fails for good.

    A task that was cleared after that makes again what it needs, as a new attempt.
    """
    if area.holds(spec.table, spec.shard, attempt):
        return False
    log.warning("%s: attempt %s is not staged any more: staging another.", spec.label, attempt)
    return True


def _bring(files: ShardFiles, work: Workspace) -> ShardFiles:
    """Return the files of a shard with paths of this machine."""
    with ThreadPoolExecutor(len(files.paths)) as pool:
        paths = pool.map(work.bring, files.paths.values())
        return replace(files, paths={r: str(p) for r, p in zip(files.paths, paths, strict=True)})
