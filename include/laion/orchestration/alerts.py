"""Alerts through the Airflow connection `laion_alerts` (Apprise: mail, Slack, PagerDuty, …).

Imported when DAGs are parsed: what sends is imported when there is something to send.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from laion.errors import ClickHouseError, RunNotPlanned, ShardsNotPublished
from laion.settings import get_settings
from laion.urls import is_local, local_path

if TYPE_CHECKING:
    from airflow.sdk import Context

    from laion.clickhouse.ledger import Ledger
    from laion.clickhouse.ledger.alert_log import Failure
    from laion.orchestration.messages import Message

log = logging.getLogger(__name__)

MARK_AGE_S = 3600
"""While the ledger is down, a run says so once in this time."""
NO_CONNECTION = (
    "There is no Airflow connection {!r}: alerts reach nobody. Create it with type Apprise and the "
    "channel's URL (README, 'Use your own Airflow')"
)


def alert_failure(context: Context) -> None:
    """Alert about a task that has failed for good: once for all failures of one cause in a run.

    The gate's alert is the run's digest. Never raises: an alert must not change a task's fate.
    """
    try:
        message = _message_about(context)
        if message is not None:
            deliver(message)
    except Exception:
        log.exception("The alert about this failure could not be prepared.")


def alert_if_late(context: Context) -> None:
    """Alert, once a run, when it has not ended LAION_DEADLINE_HOURS after it began. Never raises.

    Called before every task; a run that starts no task any more is found by the monitor. Airflow's
    own deadlines will not do: a run that has one cannot be cleared (apache/airflow#70368).
    """
    hours, began = get_settings().deadline_hours, context["dag_run"].start_date
    if not hours or began is None or datetime.now(UTC) - began < timedelta(hours=hours):
        return
    try:
        message = _message_about_late_run(context)
        if message is not None:
            deliver(message)
    except Exception:
        log.exception("The alert that this run is late could not be prepared.")


def deliver(message: Message) -> bool:
    """Send a message to every channel of the alerts connection; never raise.

    Returns whether all channels took it. Without the connection that is False, with a warning.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    conn_id = get_settings().alerts_conn_id
    try:
        import apprise
        from airflow.providers.apprise.hooks.apprise import AppriseHook
        from airflow.sdk.log import redact  # type: ignore[attr-defined]

        hook = AppriseHook(conn_id)
        channels = apprise.Apprise()
        with _silent("apprise"):  # It logs a URL that it cannot read, token included.
            hook.set_config_from_conn(hook.get_connection(conn_id), channels)
        if not channels:
            log.error("Apprise can read no channel's URL in %r; is the scheme right?", conn_id)
        kind = apprise.NotifyType.SUCCESS if message.good else apprise.NotifyType.FAILURE
        # Not hook.notify(): it does not tell whether the message was delivered.
        delivered = bool(
            channels.notify(
                title=str(redact(message.title)),
                body=str(redact(message.body)),
                notify_type=kind,
                body_format=apprise.NotifyFormat.MARKDOWN,
            )
        )
    except AirflowNotFoundException:
        log.warning("%s. Not sent: %s", NO_CONNECTION.format(conn_id), message.title)
        return False
    except Exception as error:
        # Without the traceback, which could show a channel's URL and so its token.
        log.error("The alert could not be sent (%s): %s", type(error).__name__, message.title)
        return False
    if not delivered:
        log.error("Not every channel of %r accepted the alert: %s", conn_id, message.title)
    return delivered


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def missing_connection() -> str | None:
    """Return a warning when there is no connection that alerts could go to."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    conn_id = get_settings().alerts_conn_id
    try:
        Connection.get(conn_id)
    except AirflowNotFoundException:
        return NO_CONNECTION.format(conn_id)
    return None


def airflow_url() -> str:
    """Return the address of Airflow's UI, for links."""
    from airflow.sdk import conf

    return str(conf.get("api", "base_url", fallback="http://localhost:8080"))


def _message_about(context: Context) -> Message | None:
    """Return what to send about a failed task, or None when another task sends it."""
    from laion.clickhouse.ledger import Ledger
    from laion.clickhouse.ledger.alert_log import report_failure
    from laion.clickhouse.schema import ensure_ledger
    from laion.orchestration.connections import clickhouse_client
    from laion.orchestration.messages import (
        describe_ledger_down,
        describe_run,
        describe_storm,
    )
    from laion.orchestration.retries import is_retryable

    error = context.get("exception")
    failure = _describe_failure(context)
    url = airflow_url()
    if isinstance(error, ShardsNotPublished) and not isinstance(error, RunNotPlanned):
        title = f"{failure.dataset}: run {failure.run_id} is incomplete"
        return describe_run(title, str(error), table=failure.table, airflow_url=url, good=False)
    try:
        with clickhouse_client() as client:
            ensure_ledger(client)
            ledger = Ledger(client)
            if isinstance(error, RunNotPlanned) and _was_told(ledger, failure):
                return None
            storm = report_failure(ledger, failure, get_settings().alert_settle_s)
    except ClickHouseError as down:
        if not _is_first_of_run(failure):
            return None
        return describe_ledger_down(failure, f"{type(down).__name__}: {down}", airflow_url=url)
    if storm is None:
        log.info("Another task sends the alert about this failure.")
        return None
    retryable = isinstance(error, BaseException) and is_retryable(error)
    return describe_storm(storm, error, retryable=retryable, airflow_url=url)


def _message_about_late_run(context: Context) -> Message | None:
    """Return what to send about a run that is late, or None when it was told before."""
    from laion.clickhouse.ledger import Ledger
    from laion.clickhouse.ledger.alert_log import claim_late_run
    from laion.clickhouse.schema import ensure_ledger
    from laion.orchestration.connections import clickhouse_client
    from laion.orchestration.messages import describe_late_run
    from laion.orchestration.summary import format_progress

    settings, run = get_settings(), _describe_failure(context)
    with clickhouse_client() as client:
        ensure_ledger(client)
        ledger = Ledger(client)
        if not claim_late_run(ledger, run, settings.alert_settle_s):
            return None
        progress = format_progress(ledger.run_outcomes(run.dag_id, run.run_id))
    return describe_late_run(
        run, progress, hours=settings.deadline_hours, airflow_url=airflow_url()
    )


def _describe_failure(context: Context) -> Failure:
    from laion.clickhouse.ledger.alert_log import Failure
    from laion.urls import hide_credentials

    task_instance, params = context["task_instance"], context.get("params", {})
    error = context.get("exception")
    dataset = str(params.get("dataset") or context["dag"].dag_id)
    map_index = task_instance.map_index
    return Failure(
        table=str(params.get("table") or params.get("dataset") or "").strip(),
        dataset=dataset,
        dag_id=task_instance.dag_id,
        run_id=context["run_id"],
        task_id=task_instance.task_id,
        map_index=-1 if map_index is None else map_index,
        try_number=task_instance.try_number,
        tries=task_instance.max_tries + 1,
        shard=cast("int", context.get("shard_number", -1)),
        error_class=type(error).__name__ if error else "",
        error=hide_credentials(str(error or "")),
        log_url=task_instance.log_url or "",
    )


def _was_told(ledger: Ledger, failure: Failure) -> bool:
    """Return whether an alert about another task of the run went out."""
    run = {"dag_id": failure.dag_id, "run_id": failure.run_id}
    return bool(ledger.rows("alerts_of_run", **run)[0]["alerts"])


def _is_first_of_run(failure: Failure) -> bool:
    """Return whether no other task of the run has said lately that the ledger is down.

    Without the ledger, a file decides: in the staging area if that is a directory the workers
    share, else once on each machine.
    """
    uri = get_settings().staging_uri
    root = local_path(uri) if is_local(uri) else Path(tempfile.gettempdir()) / "laion"
    run = hashlib.sha256(f"{failure.dag_id}\n{failure.run_id}".encode()).hexdigest()[:16]
    mark = root / f".ledger-down-{run}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob(".ledger-down-*"):
            if time.time() - old.stat().st_mtime > MARK_AGE_S:
                old.unlink(missing_ok=True)
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        log.warning("No mark could be left in %s; this alert may come more than once.", root)
    return True
