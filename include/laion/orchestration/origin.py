"""Which task instance is running, as the ledger records it, and whether it will run again."""

from __future__ import annotations

from airflow.sdk import Context, get_current_context

from laion.clickhouse.ledger import TaskOrigin
from laion.orchestration.retries import is_retryable


def task_origin(context: Context) -> TaskOrigin:
    """Return the origin of what the running task instance does."""
    task_instance = context["task_instance"]
    return TaskOrigin(
        dag_id=task_instance.dag_id,
        run_id=context["run_id"],
        try_number=task_instance.try_number,
        map_index=task_instance.map_index if task_instance.map_index is not None else -1,
        log_url=task_instance.log_url,
    )


def fails_for_good(error: Exception) -> bool:
    """Return whether the running task instance will not be tried again after this error."""
    task_instance = get_current_context()["task_instance"]
    return task_instance.try_number > task_instance.max_tries or not is_retryable(error)
