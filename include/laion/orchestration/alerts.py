"""Alerts through the Airflow connection `laion_alerts` (Apprise: mail, Slack, PagerDuty, …)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from laion.errors import ShardsNotPublished
from laion.orchestration.retries import is_retryable
from laion.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def alert_failure(context: Context) -> None:
    """Send one alert for a task that has failed for good; the gate's is the run's digest."""
    task_instance = context["task_instance"]
    error = context.get("exception")
    params = context.get("params", {})
    what = context.get("shard_key", f"task {task_instance.task_id}")
    dataset = params.get("dataset", context["dag"].dag_id)
    if isinstance(error, ShardsNotPublished):
        title = f"{dataset}: run {context['run_id']} is incomplete"
    else:
        title = f"{dataset}: {what} failed in {task_instance.task_id.rpartition('.')[2]}"
    retryable = isinstance(error, BaseException) and is_retryable(error)
    body = "\n".join(
        [
            f"{type(error).__name__}: {error}"
            if error
            else "The task failed without an exception.",
            "",
            f"try {task_instance.try_number} of {task_instance.max_tries + 1}"
            + ("" if retryable else "; trying again does not help by itself"),
            f"log: {task_instance.log_url}",
            f"run: {context['run_id']} of {context['dag'].dag_id}",
        ]
    )
    deliver(title, body, failure=True)


def deliver(title: str, body: str, *, failure: bool) -> bool:
    """Send a message to every channel of the alerts connection; never raise.

    Returns whether all channels took it. Without the connection that is False, with a warning.
    """
    from airflow.sdk.exceptions import AirflowNotFoundException

    conn_id = get_settings().alerts_conn_id
    try:
        import apprise
        from airflow.providers.apprise.hooks.apprise import AppriseHook

        hook = AppriseHook(conn_id)
        channels = apprise.Apprise()
        hook.set_config_from_conn(hook.get_connection(conn_id), channels)
        # Not hook.notify(): it does not tell whether the message was delivered.
        delivered = bool(
            channels.notify(
                title=title,
                body=body,
                notify_type=apprise.NotifyType.FAILURE if failure else apprise.NotifyType.SUCCESS,
            )
        )
    except AirflowNotFoundException:
        log.warning("No connection %r: this alert reaches nobody: %s", conn_id, title)
        return False
    except Exception:
        log.exception("The alert could not be sent: %s", title)
        return False
    if not delivered:
        log.error("Not every channel of %r accepted the alert: %s", conn_id, title)
    return delivered
