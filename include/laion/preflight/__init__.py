"""Can this run succeed? Source, staging area and ClickHouse, asked before anything is fetched."""

from __future__ import annotations

from contextlib import suppress

from laion.clickhouse.client import Client
from laion.clickhouse.ledger.shard_facts import rows_by_shard
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.server import inspect_server
from laion.download.options import DownloadOptions
from laion.errors import TableMismatch
from laion.preflight import source, target
from laion.preflight.report import Line, Report, Verdict
from laion.preflight.run import Run
from laion.preflight.staging import check_staging
from laion.survey import survey_files

__all__ = ["Line", "Report", "Run", "Verdict", "check_run"]


def check_run(run: Run, client: Client, options: DownloadOptions) -> Report:
    """Ask everything and return the answers; nothing is raised for a bad one.

    Raises ClickHouseUnreachable, ClickHouseAuthFailed when the server cannot be asked at all.
    """
    survey = survey_files(run.specs, options)
    server = inspect_server(client, run.server_memory_bytes)
    rows = {spec.shard: source.rows_of(spec, survey) for spec in run.specs}
    held = rows_by_shard(client, run.table)
    lines: list[Line] = []
    if run.specs:
        lines += [source.check_files(run, survey), source.check_columns(run, survey, options)]
        lines += [source.check_rows(run, survey, rows), source.bytes_to_fetch(survey)]
        lines += [*check_staging(run, survey, client), *target.check_base_table(run, client)]
    kept = _kind_in_use(run, client)
    lines += [target.check_version(run, server)]
    lines += [target.check_disk(run, server, kept, rows, held)]
    lines += target.check_index(run, server, {**held, **rows}, kept)
    lines += [*target.check_settings(client), target.check_grants(client)]
    return Report(tuple(lines), survey)


def _kind_in_use(run: Run, client: Client) -> str:
    """Return the kind of the search table in use; empty without one of this package's."""
    with suppress(TableMismatch):
        plan = read_in_use(client, run.table)
        return plan.options.kind if plan else ""
    return ""
