"""What a run is to do, decided once, and whether it can: the tasks before the shards' own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow.sdk import conf, get_current_context

from laion.backfill import QUIET_S
from laion.clickhouse.derived import check_publishable
from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.ledger.shard_facts import failed_shards, read_shard_facts
from laion.clickhouse.ledger.shard_state import Stage, StageState
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger, read_identity
from laion.columns import NAMES
from laion.datasets import Profile, load_profile
from laion.download import DownloadOptions
from laion.errors import TooManyShards
from laion.orchestration.alerts import missing_connection
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.context import (
    download_options,
    staging_access,
    staging_area,
    survey_options,
)
from laion.orchestration.origin import task_origin
from laion.orchestration.params import IngestRequest, check_conf, ingest_params
from laion.orchestration.udfs import foresee_deployment
from laion.preflight import Line, Run, Verdict, check_run
from laion.settings import get_settings
from laion.shards import ShardSpec, format_shards, parse_shards
from laion.sources import Source, base_urls, discover_shards, locate_sources, read_dimension
from laion.urls import hide_credentials, is_s3
from laion.vectors import Vector

log = logging.getLogger(__name__)


def plan() -> list[dict[str, Any]]:
    """Decide which shards this run loads from where, record it, and return their specs.

    A plan is made once per run: cleared, it returns the same shards in the same order.
    """
    context = get_current_context()
    check_conf(context["dag_run"].conf, ingest_params())
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
            options = download_options(_bases(request, profile))
            sources = locate_sources(profile, request.source, shards, options)
            vectors = _vectors(profile, sources[0].urls(sources[0].found_by), options)
            dimensions = {vector.name: vector.length for vector in vectors}
            identity = TableIdentity(request.dataset, dimensions)
            ensure_base_table(client, request.table, identity, request.element_type)
            check_publishable(client, request.table, profile.vectors, _probe_of(origin))
            specs = [_spec(request, profile, sources, vectors, shard) for shard in shards]
            log.info(
                "%d shards from %s: %s",
                len(shards),
                ", then ".join(hide_credentials(source.base) for source in sources),
                format_shards(shards),
            )
        if frozen is None:
            _record_plan(ledger, request, origin, specs)
    return [spec.to_json() for spec in specs]


def preflight(specs_json: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Ask source, staging area and ClickHouse whether the run can succeed; return the answers.

    Raises PreflightFailed with everything that is in its way. A shard that the source lacks is
    told, and fails by itself later, unless there is no whole one.
    """
    specs = [ShardSpec.from_json(spec) for spec in specs_json]
    request = IngestRequest.from_params(get_current_context()["params"])
    settings, area = get_settings(), staging_area()
    urls = [url for spec in specs for mirrors in spec.urls.values() for url in mirrors]
    profile = load_profile(request.dataset)
    with clickhouse_client() as client:
        vectors: Sequence[Vector] = specs[0].vectors if specs else ()
        if not specs and request.build_index:
            identity = read_identity(client, request.table)
            vectors = [Vector(name, size) for name, size in identity.vectors.items()]
        run = Run(
            profile=profile,
            table=request.table,
            specs=specs,
            vectors=vectors,
            staging=area,
            index=request.index_options(get_settings().search_buckets),
            element_type=request.element_type,
            server_memory_bytes=settings.clickhouse_memory,
            s3_access=staging_access() if is_s3(settings.staging_uri) else None,
            downloads_at_once=settings.max_parallel_downloads,
            converts_at_once=settings.max_parallel_converts,
        )
        report = check_run(run, client, survey_options(urls))
    report = replace(report, lines=(*report.lines, foresee_deployment(request), _alerts()))
    log.info("Before the first shard:\n%s", report.as_table())
    report.check()
    return report.to_json()


def _alerts() -> Line:
    warning = missing_connection()
    if warning is None:
        return Line("alerts", "a channel", f"connection {get_settings().alerts_conn_id}")
    return Line("alerts", "a channel", "none", Verdict.WARNING, f"{warning}.")


def _vectors(profile: Profile, urls: dict[str, str], options: DownloadOptions) -> list[Vector]:
    """Return the dataset's vectors with their dimensions; those not known are read from a file."""
    return [
        replace(v, dimension=v.dimension or read_dimension(urls[v.name], options))
        for v in profile.all_vectors
    ]


def _resolve_shards(request: IngestRequest, profile: Profile, ledger: Ledger) -> list[int]:
    """Return the shards that the param names, sorted; words are looked up now."""
    match request.shards:
        case "":
            return []
        case "all" if profile.shards is None:
            options = survey_options(_bases(request, profile))
            return discover_shards(profile, request.source, options)
        case "all":
            return profile.all_shards()
        case "failed":
            return failed_shards(ledger.client, request.table, QUIET_S)
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


def _probe_of(origin: TaskOrigin) -> str:
    """Return what stands for an attempt in a run's trial table: the next try drops the same."""
    return hashlib.sha256(f"{origin.dag_id}/{origin.run_id}".encode()).hexdigest()[:8]


def _bases(request: IngestRequest, profile: Profile) -> list[str]:
    return [url for url, _ in base_urls(profile, request.source)]


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
    request: IngestRequest,
    profile: Profile,
    sources: list[Source],
    vectors: list[Vector],
    shard: int,
) -> ShardSpec:
    places = [source.urls(shard) for source in sources]
    return ShardSpec(
        dataset=request.dataset,
        table=request.table,
        shard=shard,
        urls={role: [urls[role] for urls in places] for role in profile.roles},
        rows=profile.rows_of(shard),
        vectors=vectors,
        columns={ours: theirs for ours, theirs in profile.columns.items() if ours in NAMES},
        required=list(profile.required_columns),
        sha256=profile.digests_of(shard),
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
                    stage=Stage.PLAN,
                    state=StageState.PLANNED,
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
