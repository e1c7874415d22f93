"""Can this run succeed? Source, staging area and ClickHouse, asked before anything is fetched."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import search_table
from laion.clickhouse.publish import table_exists
from laion.clickhouse.pull import S3Access, check_access
from laion.clickhouse.server import (
    ServerFacts,
    free_disk_bytes,
    inspect_server,
    limiting_settings,
    missing_grants,
    rows_by_shard,
    too_old,
)
from laion.clickhouse.sizing import IndexOptions, format_gb, plan_index
from laion.convert import map_spec_columns
from laion.datasets import DTYPE_BYTES, NPY_HEADER_BYTES, Profile
from laion.download.options import DownloadOptions
from laion.errors import (
    BadMetadata,
    ClickHouseError,
    IndexTooLarge,
    PreflightFailed,
    SourceError,
    SourceUnreachable,
    StagingGone,
    StorageRefused,
    StorageUnreachable,
)
from laion.shards import ShardSpec, format_shards
from laion.sources import read_schema
from laion.storage import BucketArea, DirectoryArea, StagingArea
from laion.survey import Survey, survey_files

METADATA_ROW_BYTES = 200
"""What a row takes in ClickHouse beside its vectors: an estimate."""

ELEMENT_BYTES = {"Float32": 4, "BFloat16": 2}

PARQUET_SHARE = 1.0
"""The Parquet file of a shard is about as large as its files: 2.1 GB for 2.2 GB of LAION-400M."""

LOW_MEMORY_BYTES = 2_000_000_000
MAX_LISTED = 5


@dataclass(frozen=True)
class Line:
    """One answer: what was asked, what the run needs, what there is; `note` says what to do."""

    check: str
    needed: str
    found: str
    verdict: str = "ok"
    note: str = ""


@dataclass(frozen=True)
class Run:
    """What a run is going to do. `index` is None where no search table is to be built.

    `s3_access` is how ClickHouse reads a staging area on S3; a machine then downloads and converts
    up to so many shards at once.
    """

    profile: Profile
    table: str
    specs: Sequence[ShardSpec]
    dimension: int
    staging: StagingArea
    index: IndexOptions | None
    element_type: str = "Float32"
    server_memory_bytes: int | None = None
    s3_access: S3Access | None = None
    downloads_at_once: int = 1
    converts_at_once: int = 1

    @property
    def row_bytes(self) -> int:
        """What the vectors of a row take in ClickHouse."""
        return len(self.profile.vectors) * self.dimension * ELEMENT_BYTES[self.element_type]


@dataclass(frozen=True)
class Report:
    """Every answer, in the order in which it was asked."""

    lines: tuple[Line, ...]
    survey: Survey

    @property
    def problems(self) -> list[Line]:
        """What makes the whole run pointless."""
        return [line for line in self.lines if line.verdict == "problem"]

    def to_json(self) -> list[dict[str, str]]:
        return [asdict(line) for line in self.lines]

    def as_table(self) -> str:
        """Return the answers as a table for a log, notes below their line."""
        rows = [("check", "needed", "found", ""), *((*_cells(line),) for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        text = []
        for row, line in zip(rows, (None, *self.lines), strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text.append("  ".join(cells).rstrip())
            if line is not None and line.note:
                text.append(f"    {line.note}")
        return "\n".join(text)

    def check(self) -> None:
        """Raise PreflightFailed with every problem there is.

        Where nothing is wrong but that the source does not answer, raises that error, which may
        pass by itself.
        """
        if not self.problems:
            return
        reasons = list(self.survey.errors.values())
        if len(self.problems) == 1 and reasons and self.problems[0].check == "source":
            silent = [error for error in reasons if isinstance(error, SourceUnreachable)]
            if len(silent) == len(reasons):
                raise silent[0]
        listed = "\n".join(f"- {line.check}: {_sentence(line)}" for line in self.problems)
        raise PreflightFailed(
            f"this run cannot succeed; nothing was fetched. {len(self.problems)} "
            f"problem{'s' if len(self.problems) > 1 else ''}:\n{listed}"
        )


def check_run(run: Run, client: Client, options: DownloadOptions) -> Report:
    """Ask everything and return the answers; nothing is raised for a bad one.

    Raises ClickHouseUnreachable, ClickHouseAuthFailed when the server cannot be asked at all.
    """
    survey = survey_files(run.specs, options)
    server = inspect_server(client, run.server_memory_bytes)
    rows = {spec.shard: _rows(spec, survey, run) for spec in run.specs}
    held = rows_by_shard(client, run.table)
    lines: list[Line] = []
    if run.specs:
        lines += [_source(run, survey), _columns(run, survey, options)]
        lines += [_rows_line(run, survey, rows)]
        lines += [_to_fetch(survey), *_staging(run, survey, client)]
    lines += [_version(run, server), _clickhouse_disk(run, client, rows, held)]
    lines += _index(run, server, {**held, **rows})
    lines += [*_settings(client), _grants(client)]
    return Report(tuple(lines), survey)


def _source(run: Run, survey: Survey) -> Line:
    files = sum(len(spec.urls) for spec in run.specs)
    broken = survey.broken_shards
    needed = f"{files:,} files of {len(run.specs):,} shards"
    found = f"{files - len(survey.errors):,} files, {len(run.specs) - len(broken):,} whole shards"
    if not broken:
        return Line("source", needed, found)
    reasons = "; ".join(f"shard {n}: {error}" for n, error in list(broken.items())[:MAX_LISTED])
    note = f"Shards {format_shards(list(broken))} are not whole. {reasons}"
    if len(broken) > MAX_LISTED:
        note += f"; and {len(broken) - MAX_LISTED:,} more"
    every = len(broken) == len(run.specs)
    return Line("source", needed, found, "problem" if every else "warning", note)


def _columns(run: Run, survey: Survey, options: DownloadOptions) -> Line:
    """Compare the first whole shard's metadata with the table's columns, by the file's footer."""
    broken, needed = survey.broken_shards, ", ".join(run.specs[0].required)
    spec = next((spec for spec in run.specs if spec.shard not in broken), None)
    if spec is None:
        return Line("columns", needed, "unknown", "warning", "No shard is whole.")
    try:
        columns = map_spec_columns(_read_schema(spec, options), spec)
    except BadMetadata as error:
        return Line("columns", needed, spec.label, "problem", f"The metadata {error}")
    except SourceError as error:
        note = f"The columns of {spec.label} are unknown until it is fetched: {error}"
        return Line("columns", needed, "unknown", "warning", note)
    wanted = len(columns.theirs) + len(columns.absent)
    found = f"{len(columns.theirs)} of {wanted} in {spec.label}"
    verdict = "warning" if columns.absent else "ok"
    return Line("columns", needed, found, verdict, columns.describe())


def _read_schema(spec: ShardSpec, options: DownloadOptions) -> pa.Schema:
    """Return the columns of a shard's metadata file, from the first mirror that gives them."""
    *earlier, last = spec.urls["metadata"]
    for url in earlier:
        with suppress(SourceError):
            return read_schema(url, options)
    return read_schema(last, options)


def _rows(spec: ShardSpec, survey: Survey, run: Run) -> int | None:
    """Return the rows of a shard: as the profile knows them, else from the size of an npy file."""
    if spec.rows is not None:
        return spec.rows
    sizes = (survey.sizes.get((spec.shard, role)) for role in spec.vectors)
    size = next((size for size in sizes if size), None)
    if size is None:
        return None
    return (size - NPY_HEADER_BYTES) // (run.dimension * DTYPE_BYTES[run.profile.dtype])


def _rows_line(run: Run, survey: Survey, rows: dict[int, int | None]) -> Line:
    known = [count for count in rows.values() if count is not None]
    total = f"{sum(known):,}" + ("" if len(known) == len(rows) else " and more")
    odd = [spec.shard for spec in run.specs if not _has_its_rows(spec, survey, run)]
    if not odd:
        return Line("rows", "", total)
    return Line(
        "rows",
        "",
        total,
        "warning",
        f"The embedding files of shards {format_shards(odd)} have another size than their "
        "rows ask for; they will fail. Is this the right dataset, or the right mirror?",
    )


def _has_its_rows(spec: ShardSpec, survey: Survey, run: Run) -> bool:
    if spec.rows is None:
        return True
    sizes = [survey.sizes.get((spec.shard, role)) for role in spec.vectors]
    wanted = {spec.rows * run.dimension * width for width in DTYPE_BYTES.values()}
    # Older writers pad their headers to less.
    headers = range(1, NPY_HEADER_BYTES + 1)
    return all(size is None or any(size - w in headers for w in wanted) for size in sizes)


def _to_fetch(survey: Survey) -> Line:
    here = len(survey.sizes) - len(survey.remote)
    note = f"{here:,} files are on this machine and read in place." if here else ""
    return Line("to fetch", "", format_gb(survey.fetch_bytes), note=note)


def _staging(run: Run, survey: Survey, client: Client) -> Iterator[Line]:
    largest = max(survey.shard_bytes(spec.shard) for spec in run.specs)
    files = 1 if survey.remote else 0
    area, capacity = run.staging, run.staging.capacity
    if isinstance(area, DirectoryArea):
        at_once = min(capacity, len(run.specs))
        try:
            area.check_writable()
        except StorageRefused as error:
            yield Line("staging", "written by workers", str(area.root), "problem", str(error))
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
        "problem" if short else "ok",
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
        return Line("staging", needed, area.root, "problem", str(error))
    return Line("staging", needed, area.root)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists() and os.access(p, os.X_OK))


def _version(run: Run, server: ServerFacts) -> Line:
    found = f"ClickHouse {server.version}"
    if run.index is None or not server.is_old:
        return Line("server", "", found)
    return Line("server", "", found, "problem", too_old(server))


def _clickhouse_disk(
    run: Run, client: Client, rows: dict[int, int | None], held: dict[int, int]
) -> Line:
    """Compare free disk with what is new: a shard that is replaced needs no more than before."""
    free = free_disk_bytes(client)
    per_row = run.row_bytes + METADATA_ROW_BYTES
    table = sum(max(0, (count or 0) - held.get(n, 0)) for n, count in rows.items()) * per_row
    needed, parts = table, f"{format_gb(table)} for the table"
    if run.index is not None:
        needed += sum(count or 0 for count in {**held, **rows}.values()) * per_row
        parts = f"{format_gb(needed)} for table and search table, without the index"
    if free is None:
        return Line("ClickHouse disk", parts, "not told", "warning", "The user may not read it.")
    found = f"{format_gb(free)} free"
    if needed <= free:
        return Line("ClickHouse disk", parts, found)
    if table <= free and table_exists(client, search_table(run.table)):
        return Line(
            "ClickHouse disk",
            parts,
            found,
            "warning",
            "Enough only if most of the present search table stays as it is.",
        )
    return Line(
        "ClickHouse disk",
        parts,
        found,
        "problem",
        "Load fewer shards, start with build_index off, or give the server more disk.",
    )


def _index(run: Run, server: ServerFacts, rows: Mapping[int, int | None]) -> Iterator[Line]:
    total = sum(count or 0 for count in rows.values())
    if run.index is None or not total:
        return
    memory = "not told" if server.memory_bytes is None else format_gb(server.memory_bytes)
    try:
        plan = plan_index(total, run.dimension, run.index, server, len(run.profile.vectors))
    except IndexTooLarge as error:
        yield Line("index memory", f"{total:,} rows", memory, "problem", str(error))
        return
    needed = f"{format_gb(plan.estimate.memory_bytes)} as {plan.options.quantization}"
    notes = " ".join(plan.notes)
    yield Line("index memory", needed, memory, "warning" if notes else "ok", notes)
    limit = server.drop_limit_bytes
    size = total * run.row_bytes + plan.estimate.memory_bytes
    if limit is not None and size > limit:
        yield Line(
            "drop limit",
            format_gb(size),
            format_gb(limit),
            "warning",
            "The search table will be larger than the server's max_table_size_to_drop, so that an "
            "old one cannot be dropped when it is replaced. Raise that server setting.",
        )


def _settings(client: Client) -> Iterator[Line]:
    limits = limiting_settings(client)
    if limits.get("readonly"):
        yield Line(
            "readonly",
            "0",
            str(limits["readonly"]),
            "problem",
            "The user of the Airflow connection may only read.",
        )
    if seconds := limits.get("max_execution_time"):
        yield Line(
            "max_execution_time",
            "0",
            f"{seconds:,} s",
            "warning",
            "A load or an index build that takes longer is ended. Set it to 0 for this user.",
        )
    memory = limits.get("max_memory_usage")
    if memory is not None and memory < LOW_MEMORY_BYTES:
        yield Line(
            "max_memory_usage",
            format_gb(LOW_MEMORY_BYTES),
            format_gb(memory),
            "warning",
            "A load may be ended for want of memory. Raise it for this user.",
        )


def _grants(client: Client) -> Line:
    missing = missing_grants(client)
    if missing is None:
        return Line("grants", "", "not told", "warning", "The server cannot check grants.")
    if not missing:
        return Line("grants", "", "all that are needed")
    lacking = ", ".join(missing)
    return Line(
        "grants",
        lacking,
        "not granted",
        "problem",
        f"Let an administrator run: GRANT {lacking} ON <database>.* TO <user>",
    )


def _cells(line: Line) -> tuple[str, str, str, str]:
    return line.check, line.needed, line.found, line.verdict


def _sentence(line: Line) -> str:
    figures = f"needs {line.needed}, there is {line.found}. " if line.needed else ""
    return f"{figures}{line.note}"
