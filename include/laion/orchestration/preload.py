"""Imports what the tasks of a shard import, for processes that are forked into task processes.

Airflow's LocalExecutor runs each task in a process of its own, which would import all this anew:
half of the CPU time of a small task. With these two settings, it is imported once:

    AIRFLOW__SCHEDULER__MP_START_METHOD=forkserver
    AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD=laion.orchestration.preload

The price: a new version of this package counts from the next start of the scheduler on.
"""

import gc
from contextlib import suppress

import airflow.dag_processing.dagbag
import airflow.executors.local_executor
import airflow.providers.clickhousedb.hooks.clickhouse
import airflow.providers.common.sql.operators.sql
import airflow.providers.standard.decorators.python
import airflow.sdk.definitions.decorators
import airflow.sdk.execution_time.supervisor
import airflow.sdk.execution_time.task_runner  # noqa: F401
from airflow.sdk.listener import get_listener_manager

from laion.orchestration import defaults, gate, links, shard_tasks  # noqa: F401

# Where it is installed, pyarrow imports it to make an array: 0.4 CPU seconds.
with suppress(ModuleNotFoundError):
    import pandas  # noqa: F401

# Reads the plugins' files and the entry points of every installed package.
get_listener_manager()
# What is never looked at by the collector stays shared between the processes.
gc.collect()
gc.freeze()
