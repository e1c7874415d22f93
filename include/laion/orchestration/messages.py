"""What alerts say, as Markdown that also reads well as plain text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlencode

from laion.backfill import backfill_command
from laion.clickhouse.ledger.alert_log import Failure, Storm
from laion.errors import RecallTooLow, UdfError
from laion.monitor import Finding
from laion.settings import get_settings
from laion.shards import format_shards, shard_label
from laion.urls import hide_credentials

MAX_ERROR_CHARS = 600
MAX_TITLE_CHARS = 100
LINE_CHARS = 96


class Alert(StrEnum):
    """The alerts by name; the runbook (docs/operations.md) has a section on each."""

    SHARDS_FAILED = "shards-failed"
    TASK_FAILED = "task-failed"
    RECALL_LOW = "recall-low"
    FUNCTIONS_FAILED = "functions-failed"
    RUN_INCOMPLETE = "run-incomplete"
    RUN_ENDED = "run-ended"
    RUN_LATE = "run-late"
    LEDGER_DOWN = "ledger-down"
    MONITOR_FINDING = "monitor-finding"


@dataclass(frozen=True)
class Message:
    """One alert. `good` colours it where a channel has colours."""

    title: str
    body: str
    good: bool = False


def describe_storm(storm: Storm, error: object, *, retryable: bool, airflow_url: str) -> Message:
    """Return the message about all failures of one cause, of which `error` is one."""
    failure, shards = storm.failure, list(storm.shards)
    alert, title = _name_failure(storm, error)
    facts = []
    if shards:
        known = storm.rows_expected > 0
        expected = f"{storm.rows_expected:,} expected" if known else "expected number not known yet"
        facts += [
            f"dataset {failure.dataset}, table {failure.table}, shards {format_shards(shards)}",
            f"rows: {expected}, {storm.rows_loaded:,} loaded",
        ]
    elif failure.table:
        facts.append(f"dataset {failure.dataset}, table {failure.table}")
    again = "it may pass by itself" if retryable else "trying again does not help by itself"
    facts += [
        f"try {failure.try_number} of {failure.tries}; {again}",
        f"run {failure.run_id} of {failure.dag_id}",
        f"log: <{failure.log_url}>",
    ]
    lines = [_quoted(one_line(failure)), "", *_listed(alert, facts, airflow_url, failure.table)]
    if shards:
        lines += [
            "",
            "When the cause is mended, clear the failed tasks of the run, or load exactly these "
            "shards again:",
            "",
            _as_code(backfill_command(failure.table, shards=format_shards(shards))),
            "",
            "Further shards that fail alike in this run are not reported one by one; the digest "
            "at its end lists them all.",
        ]
    else:
        lines += ["", "When the cause is mended, clear the task; what follows it then runs too."]
    return Message(f"{failure.dataset}: {title}", "\n".join(lines))


def describe_run(title: str, digest: str, *, table: str, airflow_url: str, good: bool) -> Message:
    """Return the message at the end of a run."""
    alert = Alert.RUN_ENDED if good else Alert.RUN_INCOMPLETE
    lines = [_quoted(hide_credentials(digest)), "", *_listed(alert, [], airflow_url, table)]
    return Message(title, "\n".join(lines).rstrip(), good)


def describe_late_run(run: Failure, progress: str, *, hours: float, airflow_url: str) -> Message:
    """Return the message about a run that has not ended `hours` after it began."""
    run_url = f"{airflow_url.rstrip('/')}/dags/{run.dag_id}/runs/{run.run_id}"
    facts = [
        f"run {run.run_id} began more than {hours:g} hours ago and has not ended",
        f"run: <{run_url}>",
    ]
    lines = [
        _quoted(hide_credentials(progress)),
        "",
        *_listed(Alert.RUN_LATE, facts, airflow_url, run.table),
    ]
    return Message(f"{run.dataset}: run {run.run_id} is late", "\n".join(lines))


def describe_ledger_down(failure: Failure, reason: str, *, airflow_url: str) -> Message:
    """Return the message that stands for all failures of a run while the ledger is away."""
    facts = [
        f"first seen by {failure.task_id}, try {failure.try_number} of {failure.tries}",
        f"run {failure.run_id} of {failure.dag_id}",
        f"log: <{failure.log_url}>",
    ]
    lines = [
        _quoted(hide_credentials(reason)),
        "",
        "Alerts of single shards are not sent while the ledger cannot be read. What failed is not "
        "lost: see the run in Airflow, and when ClickHouse is back, start laion_backfill.",
        "",
        *_listed(Alert.LEDGER_DOWN, facts, airflow_url, failure.table),
    ]
    return Message(f"{failure.dataset}: the ledger is down", "\n".join(lines))


def describe_finding(table: str, finding: Finding, *, airflow_url: str) -> Message:
    """Return the message about one finding of the monitor; `table` is empty for the machine's."""
    summary = hide_credentials(finding.summary)
    lines = [_quoted(summary), ""]
    if finding.remedy:
        lines += ["To mend it:", "", _as_code(finding.remedy), ""]
    about = f"table {table}, " if table else ""
    facts = [f"{about}found by the check '{finding.check}' of laion_monitor"]
    lines += _listed(f"{Alert.MONITOR_FINDING}-{finding.check}", facts, airflow_url, table)
    title = textwrap.shorten(f"{table or 'laion'}: {summary}", MAX_TITLE_CHARS, placeholder=" …")
    return Message(title, "\n".join(lines))


def one_line(failure: Failure) -> str:
    """Return what failed, as one line without credentials."""
    if not failure.error_class:
        return "The task failed without an exception."
    text = " ".join(hide_credentials(failure.error).split())[:MAX_ERROR_CHARS]
    return f"{failure.error_class}: {text}"


def board_url(airflow_url: str, table: str) -> str:
    """Return where the page *Shards* shows a table, within Airflow's frame."""
    page = f"{airflow_url.rstrip('/')}/plugin/laion-shards/laion/shards"
    return f"{page}?{urlencode({'table': table})}"


def _name_failure(storm: Storm, error: object) -> tuple[Alert, str]:
    """Return which alert failures of one cause are, and its title."""
    shards, stage = storm.shards, storm.failure.task_id.rpartition(".")[2]
    if len(shards) > 1:
        return Alert.SHARDS_FAILED, f"{len(shards)} shards failed in {stage}"
    if shards:
        return Alert.SHARDS_FAILED, f"{shard_label(shards[0])} failed in {stage}"
    if isinstance(error, RecallTooLow):
        return Alert.RECALL_LOW, "the new search table finds too little and is not in use"
    if isinstance(error, UdfError):
        return Alert.FUNCTIONS_FAILED, "the SQL functions were not deployed"
    return Alert.TASK_FAILED, f"a task failed in {stage}"


def _listed(alert: str, facts: list[str], airflow_url: str, table: str) -> list[str]:
    if table:
        facts = [*facts, f"board: <{board_url(airflow_url, table)}>"]
    facts = [*facts, f"what to do: {get_settings().runbook_url}#{alert}"]
    return [f"- {fact}" for fact in facts]


def _quoted(text: str) -> str:
    """Return text as it is, but in lines that a mail does not cut off; commands stay whole."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        is_command = line.lstrip().startswith("airflow ")
        lines += (
            [line]
            if is_command
            else textwrap.wrap(
                line,
                LINE_CHARS,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return _as_code("\n".join(lines))


def _as_code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
