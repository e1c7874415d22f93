"""What alerts say, as Markdown that also reads well as plain text."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlencode

from laion.clickhouse.alert_log import Failure, Storm
from laion.monitor import Finding
from laion.shards import format_shards, shard_label
from laion.urls import hide_credentials

MAX_ERROR_CHARS = 600
RUNBOOK = "docs/operations.md"


@dataclass(frozen=True)
class Message:
    """One alert. `good` colours it where a channel has colours."""

    title: str
    body: str
    good: bool = False


def describe_storm(storm: Storm, *, retryable: bool, airflow_url: str) -> Message:
    """Return the message about all failures of one cause."""
    failure, shards = storm.failure, list(storm.shards)
    if len(shards) > 1:
        what = f"{len(shards)} shards"
    elif shards:
        what = shard_label(shards[0])
    else:
        what = "a task"
    stage = failure.task_id.rpartition(".")[2]
    facts = []
    if shards:
        facts += [
            f"dataset {failure.dataset}, table {failure.table}, shards {format_shards(shards)}",
            f"rows: {storm.rows_expected:,} expected, {storm.rows_loaded:,} loaded",
        ]
    elif failure.table:
        facts.append(f"dataset {failure.dataset}, table {failure.table}")
    again = "it may pass by itself" if retryable else "trying again does not help by itself"
    facts += [
        f"try {failure.try_number} of {failure.tries}; {again}",
        f"run {failure.run_id} of {failure.dag_id}",
        f"log: <{failure.log_url}>",
    ]
    lines = [_as_code(one_line(failure)), "", *_listed(facts, airflow_url, failure.table)]
    if shards:
        lines += [
            "",
            "When the cause is mended, clear the failed tasks of the run, or load exactly these "
            "shards again:",
            "",
            _as_code(backfill_command(failure.table, format_shards(shards))),
            "",
            "Further shards that fail alike in this run are not reported one by one; the digest "
            "at its end lists them all.",
        ]
    return Message(f"{failure.dataset}: {what} failed in {stage}", "\n".join(lines))


def describe_run(title: str, digest: str, *, table: str, airflow_url: str, good: bool) -> Message:
    """Return the message at the end of a run."""
    lines = [_as_code(hide_credentials(digest)), "", *_listed([], airflow_url, table)]
    return Message(title, "\n".join(lines).rstrip(), good)


def describe_ledger_down(failure: Failure, reason: str, *, airflow_url: str) -> Message:
    """Return the message that stands for all failures of a run while the ledger is away."""
    facts = [
        f"first seen by {failure.task_id}, try {failure.try_number} of {failure.tries}",
        f"run {failure.run_id} of {failure.dag_id}",
        f"log: <{failure.log_url}>",
    ]
    lines = [
        _as_code(hide_credentials(reason)),
        "",
        "Alerts of single shards are not sent while the ledger cannot be read. What failed is not "
        "lost: see the run in Airflow, and when ClickHouse is back, start laion_backfill.",
        "",
        *_listed(facts, airflow_url, failure.table),
    ]
    return Message(f"{failure.dataset}: the ledger is down", "\n".join(lines))


def describe_finding(table: str, finding: Finding, *, airflow_url: str) -> Message:
    """Return the message about one finding of the monitor."""
    lines = [_as_code(hide_credentials(finding.summary)), ""]
    if finding.remedy:
        lines += ["To mend it:", "", _as_code(finding.remedy), ""]
    lines += _listed([f"table {table}, found by laion_monitor"], airflow_url, table)
    return Message(f"{table}: the monitor's check '{finding.check}'", "\n".join(lines))


def one_line(failure: Failure) -> str:
    """Return what failed, as one line without credentials."""
    if not failure.error_class:
        return "The task failed without an exception."
    text = " ".join(hide_credentials(failure.error).split())[:MAX_ERROR_CHARS]
    return f"{failure.error_class}: {text}"


def backfill_command(table: str, shards: str) -> str:
    """Return the shell command that loads shards again."""
    conf = json.dumps({"table": table, "shards": shards, "dry_run": False})
    return f"airflow dags trigger laion_backfill --conf {shlex.quote(conf)}"


def board_url(airflow_url: str, table: str) -> str:
    """Return where the page *Shards* shows a table."""
    return f"{airflow_url.rstrip('/')}/laion/shards?{urlencode({'table': table})}"


def _listed(facts: list[str], airflow_url: str, table: str) -> list[str]:
    if table:
        facts = [*facts, f"board: <{board_url(airflow_url, table)}>"]
    facts = [*facts, f"what to do: {RUNBOOK}"]
    return [f"- {fact}" for fact in facts]


def _as_code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
