"""The bodies of `laion_ingest`'s tasks: plain library calls, with the ledger around them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from airflow.sdk import conf, get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException

from laion.clickhouse.identifiers import staging_table
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.load import load_shard
from laion.clickhouse.publish import (
    drop_staging,
    is_already_published,
    publish_shard,
    table_exists,
)
from laion.clickhouse.schema import (
    TableIdentity,
    ensure_base_table,
    ensure_ledger,
)
from laion.clickhouse.shard_facts import read_shard_facts
from laion.convert import Rules, convert_shard, inspect_shard
from laion.datasets import Profile, load_profile
from laion.download import DownloadOptions, Progress, download_shard
from laion.errors import AttemptSuperseded, ClickHouseError, ShardsNotPublished, TooManyShards
from laion.orchestration.alerts import deliver
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.origin import fails_for_good, task_origin
from laion.orchestration.params import IngestRequest
from laion.orchestration.summary import format_digest
from laion.settings import get_settings
from laion.shards import (
    ShardFiles,
    ShardParquet,
    ShardSpec,
    StagedShard,
    format_shards,
    parse_shards,
)
from laion.sources import Source, discover_shards, locate_sources, read_dimension
from laion.storage import StagingArea
from laion.urls import hide_credentials

log = logging.getLogger(__name__)

WAIT_FOR_ROOM_S = 10
ATTEMPT_BYTES = 4


def plan() -> list[dict[str, Any]]:
    """Decide which shards this run loads from where, record it, and return their specs.

    A plan is made once per run: cleared, it returns the same shards in the same order.
    """
    context = get_current_context()
    request, origin = IngestRequest.from_params(context["params"]), task_origin(context)
    profile = load_profile(request.dataset)
    with clickhouse_client() as client:
        ensure_ledger(client)
        ledger = Ledger(client)
        frozen = ledger.frozen_shards(origin)
        shards = _resolve_shards(request, profile, ledger) if frozen is None else _parse(frozen)
        _check_map_length(shards)
        if not shards:
            log.info("No shards to load.")
            specs: list[ShardSpec] = []
        else:
            options = _download_options()
            sources = locate_sources(profile, request.source, shards[0], options)
            dimension = profile.dimension or read_dimension(
                sources[0].urls(shards[0])[profile.vectors[0]], options
            )
            identity = TableIdentity(request.dataset, dimension)
            ensure_base_table(
                client, request.table, identity, profile.vectors, request.element_type
            )
            specs = [_spec(request, profile, sources, dimension, shard) for shard in shards]
            log.info(
                "%d shards from %s: %s",
                len(shards),
                ", then ".join(hide_credentials(source.base) for source in sources),
                format_shards(shards),
            )
        if frozen is None:
            _record_plan(ledger, request, origin, specs)
    return [spec.to_json() for spec in specs]


def download(spec_json: dict[str, Any]) -> dict[str, Any]:
    """Fetch a shard's files into the staging area (a `file://` source is left where it is).

    Goes on with what earlier tries of this run have fetched, be they killed ones. Waits, without
    holding a worker, while the staging area is full.
    """
    spec = ShardSpec.from_json(spec_json)
    area = _staging_area()
    attempt = secrets.token_hex(ATTEMPT_BYTES)
    with _shard_task(spec, "download", attempt) as (ledger, start):
        directory = _take_over(ledger, area, start) or area.claim(spec.table, spec.shard, attempt)
        if directory is None:
            for stale in area.sweep():
                log.warning("Removed %s: nobody has touched it for hours.", stale)
            log.info("%s waits: %d shards are staged already.", spec.label, area.capacity)
            later = datetime.now(UTC) + timedelta(seconds=WAIT_FOR_ROOM_S)
            raise AirflowRescheduleException(later)  # type: ignore[no-untyped-call]
        with _freeing_on_final_failure(ledger, area, start), ledger.record_stage(start) as result:
            progress = Progress(spec.label, lambda here: _record_progress(ledger, start, here))
            files = download_shard(spec, attempt, directory, _download_options(), progress)
            log.info("%s", progress.describe())
            result.bytes = sum(files.sizes.values())
            result.rows_expected = inspect_shard(files)
    return files.to_json()


def convert(files_json: dict[str, Any]) -> dict[str, Any]:
    """Turn a shard's files into one checked Parquet file."""
    files = ShardFiles.from_json(files_json)
    request = IngestRequest.from_params(get_current_context()["params"])
    area = _staging_area()
    directory = area.directory(files.spec.table, files.spec.shard, files.attempt)
    with (
        _shard_task(files.spec, "convert", files.attempt) as (ledger, start),
        _freeing_on_final_failure(ledger, area, start),
        ledger.record_stage(start) as result,
    ):
        rules = Rules(request.max_bad_vectors, request.strict_alignment)
        parquet = convert_shard(files, directory / f"{files.spec.shard}.parquet", rules)
        result.rows_expected, result.bytes = parquet.rows, parquet.size
    return parquet.to_json()


def load(parquet_json: dict[str, Any]) -> dict[str, Any]:
    """Load a shard's Parquet file into the staging table of its attempt."""
    parquet = ShardParquet.from_json(parquet_json)
    with (
        _shard_task(parquet.spec, "load", parquet.attempt) as (ledger, start),
        _freeing_on_final_failure(ledger, _staging_area(), start),
        ledger.record_stage(start) as result,
    ):
        staged = load_shard(ledger.client, parquet, try_number=start.origin.try_number)
        result.rows_expected, result.rows_loaded = parquet.rows, staged.rows_written
        result.bytes = parquet.size
    return staged.to_json()


def validate(staged_json: dict[str, Any]) -> int:
    """Verify a staged shard, publish it in one step, clean up; return its rows.

    A shard that a later attempt has published meanwhile is left as that attempt made it.
    """
    staged = StagedShard.from_json(staged_json)
    spec, attempt, area = staged.parquet.spec, staged.parquet.attempt, _staging_area()
    keep = IngestRequest.from_params(get_current_context()["params"]).keep_parquet
    with _shard_task(spec, "validate", attempt) as (ledger, start):
        client = ledger.client
        if not table_exists(client, staged.staging_table) and is_already_published(
            client, ledger, staged
        ):
            log.info("%s: this attempt is published already; nothing to do.", spec.label)
            return staged.parquet.rows
        try:
            with (
                _freeing_on_final_failure(ledger, area, start),
                ledger.record_stage(start) as result,
            ):
                contents = publish_shard(client, ledger, staged)
                result.rows_expected = staged.parquet.rows
                result.rows_loaded, result.hash = contents.rows, contents.hash
            published = {**start.__dict__, **result.__dict__, "stage": "publish", "state": "done"}
            ledger.append([ShardEvent(**published)])
            if keep:
                _keep_parquet(Path(staged.parquet.path), area, spec)
        except AttemptSuperseded as superseded:
            log.warning("%s", superseded)
        _discard_attempt(ledger, area, spec.table, spec.shard, attempt)
    return staged.parquet.rows


def confirm() -> dict[str, Any]:
    """Fail the run unless the ledger shows every planned shard published since it was planned.

    Raises ShardsNotPublished, whose text is the run's digest; else sends the digest.
    """
    context = get_current_context()
    request, origin = IngestRequest.from_params(context["params"]), task_origin(context)
    with clickhouse_client() as client:
        ensure_ledger(client)
        ledger = Ledger(client)
        if ledger.frozen_shards(origin) is None:
            raise ShardsNotPublished("the run was never planned; see the log of the task `plan`")
        outcomes = ledger.run_outcomes(origin.dag_id, origin.run_id)
        missing = [outcome for outcome in outcomes if not outcome.is_published]
        if outcomes:
            ledger.record_end(
                origin, table=request.table, planned=len(outcomes), missing=len(missing)
            )
    digest = format_digest(request.dataset, request.table, outcomes)
    log.info("%s", digest)
    if len(missing) > request.tolerate_failed_shards:
        raise ShardsNotPublished(digest)
    if outcomes:
        deliver(
            f"{request.dataset}: {len(outcomes) - len(missing)} shards are in",
            digest,
            failure=False,
        )
    return {
        "shards": len(outcomes),
        "missing": [outcome.shard for outcome in missing],
        "rows": sum(outcome.rows_loaded for outcome in outcomes),
    }


def _resolve_shards(request: IngestRequest, profile: Profile, ledger: Ledger) -> list[int]:
    """Return the shards that the param names, sorted; words are looked up now."""
    match request.shards:
        case "":
            return []
        case "all" if profile.shards is None:
            return discover_shards(profile, request.source, _download_options())
        case "all":
            return profile.all_shards()
        case "failed":
            return ledger.failed_shards(request.table)
        case "missing":
            known = ledger.planned_shards(request.table)
            if profile.shards is not None:
                known = sorted({*known, *profile.all_shards()})
            held = {
                fact.shard
                for fact in read_shard_facts(ledger.client, request.table)
                if fact.is_held
            }
            return sorted(set(known) - held)
        case expression:
            return profile.check_shards(parse_shards(expression))


def _parse(frozen: str) -> list[int]:
    return parse_shards(frozen) if frozen else []


def _check_map_length(shards: list[int]) -> None:
    limit = conf.getint("core", "max_map_length")
    if len(shards) > limit:
        raise TooManyShards(
            f"shards: {len(shards):,} shards, but Airflow maps at most {limit:,} tasks in one go; "
            "set AIRFLOW__CORE__MAX_MAP_LENGTH higher or load a range at a time, such as "
            f"{format_shards(shards[:limit])[:60]!r}"
        )


def _spec(
    request: IngestRequest, profile: Profile, sources: list[Source], dimension: int, shard: int
) -> ShardSpec:
    places = [source.urls(shard) for source in sources]
    return ShardSpec(
        dataset=request.dataset,
        table=request.table,
        shard=shard,
        urls={role: [urls[role] for urls in places] for role in profile.roles},
        rows=profile.rows_of(shard),
        dimension=dimension,
        vectors=list(profile.vectors),
        columns=profile.columns,
    )


def _record_plan(
    ledger: Ledger, request: IngestRequest, origin: TaskOrigin, specs: list[ShardSpec]
) -> None:
    if specs:
        ledger.append(
            [
                ShardEvent(
                    table=spec.table,
                    shard=spec.shard,
                    dataset=spec.dataset,
                    origin=origin,
                    stage="plan",
                    state="planned",
                    rows_expected=spec.rows or 0,
                )
                for spec in specs
            ]
        )
    # Written last: a plan without this row is made again.
    ledger.record_run(
        origin,
        table=request.table,
        dataset=request.dataset,
        source=", ".join(hide_credentials(url.strip()) for url in request.source.split(",")),
        shards=format_shards([spec.shard for spec in specs]),
        params={**request.__dict__, "source": hide_credentials(request.source)},
    )


@contextmanager
def _shard_task(spec: ShardSpec, stage: str, attempt: str) -> Iterator[tuple[Ledger, ShardEvent]]:
    """Name the mapped instance after its shard; yield the ledger and the event of this stage."""
    context = get_current_context()
    cast(dict[str, Any], context)["shard_key"] = spec.label
    with clickhouse_client() as client:
        start = ShardEvent(
            table=spec.table,
            shard=spec.shard,
            dataset=spec.dataset,
            origin=task_origin(context),
            stage=stage,
            state="started",
            attempt=attempt,
            rows_expected=spec.rows or 0,
        )
        yield Ledger(client), start


def _record_progress(ledger: Ledger, start: ShardEvent, bytes_here: int) -> None:
    """Write the start of a download again, with what is here: the board shows a percentage."""
    try:
        ledger.append([replace(start, bytes=bytes_here)])
    except ClickHouseError as error:
        log.warning("%s: the ledger was not told how far the download is: %s", start.shard, error)


@contextmanager
def _freeing_on_final_failure(
    ledger: Ledger, area: StagingArea, start: ShardEvent
) -> Iterator[None]:
    """Free the place of a shard in the staging area when its task fails for the last time."""
    try:
        yield
    except Exception as error:
        if fails_for_good(error):
            try:
                _discard_attempt(ledger, area, start.table, start.shard, start.attempt)
            except ClickHouseError:
                log.exception("The staging table of attempt %s is left over.", start.attempt)
        raise


def _take_over(ledger: Ledger, area: StagingArea, start: ShardEvent) -> Path | None:
    """Take over what this run's earlier tries at the shard have fetched; free the rest of it."""
    taken: Path | None = None
    for earlier in ledger.attempts(start):
        taken = taken or area.adopt(start.table, start.shard, earlier, start.attempt)
        _discard_attempt(ledger, area, start.table, start.shard, earlier)
    return taken


def _discard_attempt(
    ledger: Ledger, area: StagingArea, table: str, shard: int, attempt: str
) -> None:
    area.release(table, shard, attempt)
    drop_staging(ledger.client, staging_table(table, shard, attempt))


def _keep_parquet(path: Path, area: StagingArea, spec: ShardSpec) -> None:
    kept = area.root / "parquet" / spec.table / path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    path.replace(kept)
    log.info("%s: kept as %s", spec.label, kept)


def _download_options() -> DownloadOptions:
    settings = get_settings()
    return DownloadOptions(
        connect_timeout_s=settings.connect_timeout_s, read_timeout_s=settings.read_timeout_s
    )


def _staging_area() -> StagingArea:
    settings = get_settings()
    return StagingArea.from_uri(settings.staging_uri, settings.max_shards_in_flight)
