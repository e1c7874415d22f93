"""Has the source every file, and what is in them?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from laion.convert import map_spec_columns
from laion.datasets import DTYPE_BYTES, NPY_HEADER_BYTES
from laion.download.options import DownloadOptions
from laion.errors import BadMetadata, SourceError
from laion.metadata import ColumnMap
from laion.preflight.report import Line, Verdict
from laion.preflight.run import Run
from laion.shards import ShardSpec, format_shards
from laion.sources import read_schema
from laion.survey import Survey
from laion.units import format_gb

MAX_LISTED = 5
MAX_OPENED = 3
"""Metadata files that are looked into until one can be used."""


def check_files(run: Run, survey: Survey) -> Line:
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
    return Line("source", needed, found, Verdict.PROBLEM if every else Verdict.WARNING, note)


def check_columns(run: Run, survey: Survey, options: DownloadOptions) -> Line:
    """Compare the first whole shard's metadata with the table's columns, by the file's footer.

    Where that file cannot be used a few more are looked at: the run may do without one shard.
    """
    broken, needed = survey.broken_shards, ", ".join(run.specs[0].required)
    whole = [spec for spec in run.specs if spec.shard not in broken][:MAX_OPENED]
    unusable: list[str] = []
    for spec in whole:
        try:
            columns = map_spec_columns(_read_schema(spec, options), spec)
        except BadMetadata as error:
            unusable.append(f"The metadata of {spec.label} {error}.")
        except SourceError as error:
            note = f"The columns of {spec.label} are unknown until it is fetched: {error}"
            return Line("columns", needed, "unknown", Verdict.WARNING, " ".join([*unusable, note]))
        else:
            return _columns_line(needed, spec, columns, unusable)
    verdict = Verdict.PROBLEM if whole else Verdict.WARNING
    return Line("columns", needed, "unknown", verdict, " ".join(unusable) or "No shard is whole.")


def _columns_line(
    needed: str, spec: ShardSpec, columns: ColumnMap, unusable: Sequence[str]
) -> Line:
    wanted = len(columns.theirs) + len(columns.absent)
    found = f"{len(columns.theirs)} of {wanted} in {spec.label}"
    verdict = Verdict.WARNING if columns.absent or unusable else Verdict.OK
    return Line("columns", needed, found, verdict, " ".join([*unusable, columns.describe()]))


def _read_schema(spec: ShardSpec, options: DownloadOptions) -> pa.Schema:
    """Return the columns of a shard's metadata file, from the first mirror that gives them."""
    *earlier, last = spec.urls["metadata"]
    for url in earlier:
        with suppress(SourceError, BadMetadata):
            return read_schema(url, options)
    return read_schema(last, options)


def rows_of(spec: ShardSpec, survey: Survey) -> int | None:
    """Return the rows of a shard: as the profile knows them, else from the size of an npy file."""
    if spec.rows is not None:
        return spec.rows
    for vector in spec.vectors:
        if size := survey.sizes.get((spec.shard, vector.name)):
            return (size - NPY_HEADER_BYTES) // (vector.length * DTYPE_BYTES[vector.dtype])
    return None


def check_rows(run: Run, survey: Survey, rows: dict[int, int | None]) -> Line:
    known = [count for count in rows.values() if count is not None]
    total = f"{sum(known):,}" + ("" if len(known) == len(rows) else " and more")
    odd = [spec.shard for spec in run.specs if not _has_its_rows(spec, survey)]
    if not odd:
        return Line("rows", "", total)
    return Line(
        "rows",
        "",
        total,
        Verdict.WARNING,
        f"The embedding files of shards {format_shards(odd)} have another size than their "
        "rows ask for; they will fail. Is this the right dataset, or the right mirror?",
    )


def _has_its_rows(spec: ShardSpec, survey: Survey) -> bool:
    if spec.rows is None:
        return True
    # Older writers pad their headers to less.
    headers = range(1, NPY_HEADER_BYTES + 1)
    for vector in spec.vectors:
        size = survey.sizes.get((spec.shard, vector.name))
        wanted = [spec.rows * vector.length * width for width in DTYPE_BYTES.values()]
        if size is not None and not any(size - rows in headers for rows in wanted):
            return False
    return True


def bytes_to_fetch(survey: Survey) -> Line:
    here = len(survey.sizes) - len(survey.remote)
    note = f"{here:,} files are on this machine and read in place." if here else ""
    return Line("to fetch", "", format_gb(survey.fetch_bytes), note=note)
