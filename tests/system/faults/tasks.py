"""One task of a run as a process: the bodies that the DAG calls, without Airflow's scheduler.

The context is what Airflow's task runner would give, connections come from the environment, and
SIGTERM does to the process what it does there: nothing for a Python task (the supervisor follows
it with SIGKILL). What the task returns, or raises, goes to a file, as XCom goes to Airflow.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from airflow.providers.clickhousedb.hooks import clickhouse as _hook  # noqa: F401  (for the fork)
from airflow.sdk import Context
from airflow.sdk.api.datamodels._generated import DagRunState
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors, set_current_context

from laion.clickhouse.search_table import lease
from laion.orchestration import gate, planning, search_index, shard_tasks, udfs
from laion.orchestration.alerts import alert_failure
from laion.orchestration.retries import LaionRetryPolicy
from laion.settings import get_settings

BODIES: dict[str, Callable[..., Any]] = {
    "plan": planning.plan,
    "preflight": planning.preflight,
    "download_shard": shard_tasks.download,
    "convert_shard": shard_tasks.convert,
    "load_shard": shard_tasks.load,
    "validate_shard": shard_tasks.validate,
    "confirm_shards": gate.confirm,
    "plan_index": search_index.plan,
    "build_index": search_index.build,
    "measure_recall": search_index.measure,
    "publish_index": search_index.publish,
    "deploy_udfs": udfs.deploy_udfs,
}


@dataclass(frozen=True)
class Order:
    """A try of a task instance: what a worker of Airflow is told."""

    task: str
    run_id: str
    params: dict[str, Any]
    env: dict[str, str]
    outcome: Path
    log: Path
    argument: Any = None
    try_number: int = 1
    max_tries: int = 0
    map_index: int = -1
    run_states: dict[str, str] = field(default_factory=dict)
    clock_ahead_s: float = 0
    file_limit_bytes: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a try ended; `state` as Airflow calls it, 'killed' when the process left no word."""

    state: str
    value: Any = None
    error_class: str = ""
    error: str = ""
    delay_s: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


def run_task(order: Order) -> None:
    """Be the task process."""
    os.environ.update(order.env)
    signal.signal(signal.SIGTERM, lambda *_: None)
    logging.basicConfig(filename=order.log, level=logging.INFO, force=True)
    lease.SETTLE_S = 0.2  # The server is on the same machine.
    if order.file_limit_bytes:
        # The kernel ends the process at exactly this byte of any file that it writes.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_limit_bytes, limits[1]))
    if order.clock_ahead_s:
        real = time.time
        time.time = lambda: real() + order.clock_ahead_s
    context = _context(order)
    with set_current_context(context):
        outcome = _run(order, context)
    new = order.outcome.with_suffix(".new")
    new.write_text(json.dumps(outcome.__dict__))
    new.replace(order.outcome)


def _run(order: Order, context: Context) -> Outcome:
    try:
        arguments = () if order.argument is None else (order.argument,)
        return Outcome("success", BODIES[order.task](*arguments))
    except AirflowSkipException:
        return Outcome("skipped")
    except AirflowRescheduleException:
        return Outcome("up_for_reschedule")
    except BaseException as error:
        logging.exception("The task failed.")
        told = {"error_class": type(error).__name__, "error": str(error)}
        if order.try_number <= order.max_tries:
            policy = LaionRetryPolicy(get_settings().retry_delay_s)
            decision = policy.evaluate(error, order.try_number, order.max_tries)
            if decision.retry_delay is not None:
                delay_s = decision.retry_delay.total_seconds()
                return Outcome("up_for_retry", delay_s=delay_s, **told)
        cast(dict[str, Any], context)["exception"] = error
        alert_failure(context)
        return Outcome("failed", **told)


def _context(order: Order) -> Context:
    instance = SimpleNamespace(
        dag_id="laion_ingest",
        run_id=order.run_id,
        task_id=order.task,
        try_number=order.try_number,
        max_tries=order.max_tries,
        map_index=order.map_index,
        log_url="http://airflow/log",
        get_dagrun_state=lambda dag_id, run_id: DagRunState(order.run_states[run_id]),
    )
    context = {
        "dag": SimpleNamespace(dag_id="laion_ingest"),
        "run_id": order.run_id,
        "dag_run": SimpleNamespace(conf=order.params),
        "params": order.params,
        "task_instance": instance,
        "ti": instance,
        "outlet_events": OutletEventAccessors(),
    }
    return cast(Context, context)
