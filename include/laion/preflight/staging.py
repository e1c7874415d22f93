"""Has the staging area the room, and may workers and ClickHouse use it?"""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from laion.clickhouse.client import Client
from laion.clickhouse.shards.pull import check_access
from laion.errors import ClickHouseError, StagingGone, StorageRefused, StorageUnreachable
from laion.preflight.report import Line, Verdict
from laion.preflight.run import Run
from laion.storage import BucketArea, DirectoryArea
from laion.survey import Survey
from laion.units import format_gb

PARQUET_SHARE = 1.0
"""The Parquet file of a shard is about as large as its files: 2.1 GB for 2.2 GB of LAION-400M."""


def check_staging(run: Run, survey: Survey, client: Client) -> Iterator[Line]:
    largest = max(survey.shard_bytes(spec.shard) for spec in run.specs)
    files = 1 if survey.remote else 0
    area, capacity = run.staging, run.staging.capacity
    if isinstance(area, DirectoryArea):
        at_once = min(capacity, len(run.specs))
        try:
            area.check_writable()
        except StorageRefused as error:
            yield Line("staging", "written by workers", str(area.root), Verdict.PROBLEM, str(error))
        yield _disk(
            "staging disk",
            area.root,
            int(at_once * largest * (files + PARQUET_SHARE)),
            f"for {at_once} shards at once",
            f"point LAION_STAGING_URI at a larger disk or lower LAION_MAX_SHARDS_IN_FLIGHT from "
            f"{capacity}",
        )
    elif isinstance(area, BucketArea):
        downloads, converts = run.downloads_at_once * files, run.converts_at_once
        yield _disk(
            "scratch disk",
            area.scratch,
            int(largest * (downloads + converts * (files + PARQUET_SHARE))),
            f"if one machine works on {downloads + converts} shards",
            "point LAION_SCRATCH_DIR at a larger disk or lower LAION_MAX_PARALLEL_DOWNLOADS or "
            "LAION_MAX_PARALLEL_CONVERTS",
        )
        yield _bucket(run, area, client)


def _disk(check: str, directory: Path, needed: int, why: str, remedy: str) -> Line:
    free = shutil.disk_usage(_existing(directory)).free
    short = needed > free
    return Line(
        check,
        f"{format_gb(needed)} {why}",
        f"{format_gb(free)} free",
        Verdict.PROBLEM if short else Verdict.OK,
        f"Free some of {directory}, {remedy}." if short else "",
    )


def _bucket(run: Run, area: BucketArea, client: Client) -> Line:
    """Write a small file to the staging area on S3, let ClickHouse read it, delete it."""
    needed, file = "written by workers, read by ClickHouse", io.BytesIO()
    pq.write_table(pa.table({"probe": [1]}), file)
    try:
        probe = f"{area.root}/.probe-{secrets.token_hex(4)}.parquet"
        area.objects.write(probe, file.getvalue())
        try:
            if run.s3_access is not None:
                check_access(client, probe, run.s3_access)
        finally:
            area.objects.delete(probe)
    except (StorageRefused, StorageUnreachable, ClickHouseError, StagingGone) as error:
        return Line("staging", needed, area.root, Verdict.PROBLEM, str(error))
    return Line("staging", needed, area.root)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists() and os.access(p, os.X_OK))
