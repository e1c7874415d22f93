"""What every DAG and task of this package has in common. Imported when DAGs are parsed: light."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from laion.orchestration.alerts import alert_failure
from laion.orchestration.retries import LaionRetryPolicy
from laion.settings import get_settings

SQL_DIRECTORY = str(Path(__file__).parents[1] / "clickhouse" / "sql")
"""Where operators find the package's `.sql` files (a DAG's `template_searchpath`)."""


class Tag(StrEnum):
    """Tags by which the DAGs are found in the UI."""

    LAION = "laion"
    INGEST = "ingest"
    OPERATIONS = "operations"


class Timeout:
    """How long a task may run; those of a shard are shorter than laion.storage.STALE_AFTER_S."""

    PLAN = timedelta(minutes=10)
    DOWNLOAD = timedelta(hours=3)
    CONVERT = timedelta(hours=1)
    LOAD = timedelta(hours=2)
    VALIDATE = timedelta(minutes=30)
    CONFIRM = timedelta(minutes=10)
    BUILD_INDEX = timedelta(days=3)
    MEASURE = timedelta(hours=6)
    UDFS = timedelta(minutes=20)
    REPORT = timedelta(minutes=10)
    REPAIR = timedelta(days=7)


def shard_task(timeout: timedelta, at_once: int | None = None) -> dict[str, Any]:
    """Return what a task of every shard has: its name by shard, its time, how many may run."""
    return {
        "execution_timeout": timeout,
        "map_index_template": "{{ shard_key }}",
        "max_active_tis_per_dag": at_once,
    }


def default_args() -> dict[str, Any]:
    """Return the defaults of every task."""
    settings = get_settings()
    args: dict[str, Any] = {
        "owner": "laion",
        "retries": settings.retries,
        "retry_policy": LaionRetryPolicy(settings.retry_delay_s),
        # Of a task that could not tell its error, because its worker was killed.
        "retry_delay": timedelta(seconds=settings.retry_delay_s),
        "on_failure_callback": alert_failure,
        # What tasks hand on has the URLs of the source, and so perhaps its password.
        "show_return_value_in_logs": False,
        # Later stages first: a shard that is half way is finished before another is started.
        "weight_rule": "upstream",
    }
    if settings.pool:
        args["pool"] = settings.pool
    return args
