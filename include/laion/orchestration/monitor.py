"""The bodies of `laion_monitor`'s tasks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from airflow.sdk import get_current_context

from laion.clickhouse.client import Client
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import ensure_ledger
from laion.errors import NeverLoaded, UdfCheckFailed, UdfsNotPossible
from laion.monitor import (
    MIN_FREE,
    Check,
    Finding,
    Outcome,
    Skipped,
    check_counts,
    check_disks,
    check_drift,
    check_hashes,
    check_index,
    check_leftovers,
    check_recall,
    check_runs,
    monitored_tables,
    record_findings,
    run_checks,
)
from laion.orchestration.alerts import airflow_url, deliver
from laion.orchestration.connections import clickhouse_client
from laion.orchestration.context import staging_area
from laion.orchestration.leftovers import free_places
from laion.orchestration.messages import describe_finding
from laion.orchestration.params import check_conf, monitor_params
from laion.orchestration.udfs import smoke_test
from laion.settings import get_settings
from laion.storage import STALE_AFTER_S, DirectoryArea

log = logging.getLogger(__name__)


def list_tables() -> list[dict[str, str]]:
    """Return the tables to check: the one of the param, or all that were ever loaded."""
    context = get_current_context()
    check_conf(context["dag_run"].conf, monitor_params())
    wanted = (context["params"]["table"] or "").strip()
    with clickhouse_client() as client:
        ensure_ledger(client)
        tables = monitored_tables(client)
    if wanted and wanted not in {table for table, _ in tables}:
        raise NeverLoaded(
            f"table: the ledger knows of no run that has loaded into {wanted!r}; it knows "
            f"{', '.join(table for table, _ in tables) or 'no table'}"
        )
    return [
        {"table": table, "dataset": dataset} for table, dataset in tables if wanted in ("", table)
    ]


def check_machine() -> dict[str, int]:
    """Check what all tables share: the server's disks and the staging area."""
    with clickhouse_client() as client:
        ensure_ledger(client)
        return _report(client, "", run_checks(machine_checks(client)))


def check_table(target: dict[str, str]) -> dict[str, int]:
    """Check one table, record what was found and alert about each finding.

    Returns how many checks ended in which state.
    """
    context = get_current_context()
    cast(dict[str, Any], context)["table_key"] = target["table"]
    with clickhouse_client() as client:
        checks = table_checks(client, target["table"], target["dataset"])
        return _report(client, target["table"], run_checks(checks))


def machine_checks(client: Client) -> dict[str, Check]:
    """Return the checks of what all tables share, by name."""
    return {"disks": lambda: check_disks(client), "staging": lambda: _check_staging(Ledger(client))}


def table_checks(client: Client, table: str, dataset: str) -> dict[str, Check]:
    """Return the checks of one table, by name."""
    settings = get_settings()
    night = datetime.now(UTC).toordinal()
    return {
        "counts": lambda: check_counts(client, table),
        "runs": lambda: check_runs(client, table, 3600 * settings.deadline_hours),
        "hashes": lambda: check_hashes(client, table, night),
        "index": lambda: check_index(client, table),
        "drift": lambda: check_drift(client, table),
        "recall": lambda: check_recall(
            client, table, queries=settings.recall_queries, budget=settings.recall_budget
        ),
        "functions": _check_functions(table, dataset),
        "leftovers": lambda: check_leftovers(client, table, STALE_AFTER_S),
    }


def _report(client: Client, table: str, findings: list[Finding]) -> dict[str, int]:
    """Record findings, log them, and alert about each that is bad; count them by state."""
    record_findings(client, table, get_current_context()["run_id"], findings)
    for finding in findings:
        bad = finding.state in (Outcome.FOUND, Outcome.FAILED)
        log.log(
            logging.WARNING if bad else logging.INFO,
            "%-9s %-7s %s",
            finding.check,
            finding.state,
            finding.summary,
        )
        if bad:
            deliver(describe_finding(table, finding, airflow_url=airflow_url()))
    states = [finding.state for finding in findings]
    return {state: states.count(state) for state in sorted(set(states))}


def _check_functions(table: str, dataset: str) -> Callable[[], list[Finding]]:
    def check() -> list[Finding]:
        try:
            smoke_test(table, dataset)
        except UdfsNotPossible as reason:
            raise Skipped(str(reason)) from reason
        except UdfCheckFailed as error:
            remedy = "trigger laion_ingest with shards empty, build_index off and deploy_udfs on"
            return [Finding("functions", Outcome.FOUND, str(error), remedy)]
        return []

    return check


def _check_staging(ledger: Ledger) -> list[Finding]:
    """Remove what dead attempts have left in the staging area, and look at its disk."""
    area = staging_area()
    found = []
    if freed := free_places(ledger, area):
        told = "dead attempts had left files, now removed: " + "; ".join(freed)
        found.append(Finding("staging", Outcome.FOUND, told, "none"))
    if isinstance(area, DirectoryArea) and area.root.exists():
        usage = shutil.disk_usage(area.root)
        if usage.free < MIN_FREE * usage.total:
            text = f"{area.root} has {usage.free / usage.total:.0%} of its disk free"
            found.append(Finding("staging", Outcome.FOUND, text, "free some space"))
    return found
