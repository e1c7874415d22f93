"""What every DAG and task must have, checked on the DAGs as Airflow parses them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

from laion.backfill import WHICH
from laion.orchestration.alerts import alert_failure
from laion.orchestration.defaults import Tag
from laion.orchestration.params import backfill_params
from laion.orchestration.retries import LaionRetryPolicy
from laion.storage import STALE_AFTER_S

DAG_IDS = {"laion_ingest", "laion_backfill", "laion_monitor"}
SHARD_TASKS = ["download_shard", "convert_shard", "load_shard", "validate_shard"]
HEAVY_MODULES = (
    "numpy",
    "pyarrow",
    "clickhouse_connect",
    "pandas",
    "apprise",
    "requests",
    "onnxruntime",
    "tokenizers",
    "PIL",
)


def test_all_dags_import_without_errors_or_warnings(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert dag_bag.captured_warnings == {}
    assert set(dag_bag.dags) == DAG_IDS


def test_every_dag_explains_itself(dag_bag: DagBag) -> None:
    for dag in dag_bag.dags.values():
        assert dag.doc_md, dag.dag_id
        assert dag.description, dag.dag_id
        assert all(param.description for param in map(dag.params.get_param, dag.params)), dag.dag_id


def test_every_tag_comes_from_the_enum(dag_bag: DagBag) -> None:
    for dag in dag_bag.dags.values():
        assert dag.tags, dag.dag_id
        assert dag.tags <= set(Tag), dag.dag_id


def test_every_task_retries_times_out_alerts_and_has_an_owner(dag_bag: DagBag) -> None:
    for dag in dag_bag.dags.values():
        for task in dag.tasks:
            assert task.retries > 0, task.task_id
            assert isinstance(task.retry_policy, LaionRetryPolicy), task.task_id
            assert task.execution_timeout > timedelta(0), task.task_id
            callbacks = task.on_failure_callback
            # A mapped task keeps it as it was given, another as a list.
            assert callbacks == alert_failure or alert_failure in callbacks, task.task_id
            assert task.owner == "laion", task.task_id


def test_no_task_waits_for_a_pool_that_may_not_exist(dag_bag: DagBag) -> None:
    pools = {task.pool for dag in dag_bag.dags.values() for task in dag.tasks}

    assert pools == {"default_pool"}


def test_later_stages_of_a_shard_go_first(laion_ingest: DAG) -> None:
    rules = {str(task.weight_rule) for task in laion_ingest.tasks}

    assert rules == {"upstream"}


def test_no_shard_task_may_outlive_its_staged_files(laion_ingest: DAG) -> None:
    for name in SHARD_TASKS:
        timeout = laion_ingest.get_task(f"ingest_shard.{name}").execution_timeout
        assert timeout.total_seconds() < STALE_AFTER_S


def test_a_shard_passes_its_four_stages_in_order(laion_ingest: DAG) -> None:
    tasks = [laion_ingest.get_task(f"ingest_shard.{name}") for name in SHARD_TASKS]

    assert tasks[0].upstream_task_ids == {"plan", "preflight"}
    for earlier, later in itertools.pairwise(tasks):
        assert later.upstream_task_ids == {earlier.task_id}


def test_the_gate_sees_every_outcome_and_stands_before_the_index(laion_ingest: DAG) -> None:
    gate = laion_ingest.get_task("confirm_shards")

    assert gate.trigger_rule == "all_done"
    assert gate.upstream_task_ids == {"ingest_shard.validate_shard"}
    assert laion_ingest.get_task("plan_index").upstream_task_ids == {"confirm_shards"}


def test_a_search_table_is_put_in_place_only_after_its_recall_was_measured(
    laion_ingest: DAG,
) -> None:
    steps = ["plan_index", "build_index", "measure_recall", "publish_index", "check_index"]

    for earlier, later in itertools.pairwise(steps):
        assert laion_ingest.get_task(later).upstream_task_ids == {earlier}


def test_functions_are_deployed_last_and_also_without_index_and_shards(laion_ingest: DAG) -> None:
    deploy = laion_ingest.get_task("deploy_udfs")

    assert deploy.trigger_rule == "none_failed"
    assert deploy.upstream_task_ids == {"check_index"}
    assert laion_ingest.get_task("report").upstream_task_ids == {"deploy_udfs"}


def test_only_the_report_is_a_leaf_and_it_is_no_all_done(laion_ingest: DAG) -> None:
    """A leaf with ALL_DONE would turn a failed run green."""
    assert [task.task_id for task in laion_ingest.leaves] == ["report"]
    assert laion_ingest.get_task("report").trigger_rule == "none_failed"


def test_parsing_loads_nothing_heavy_and_opens_no_connection() -> None:
    program = (
        "import sys, socket\n"
        "import airflow.sdk, airflow.providers.common.sql.operators.sql\n"
        "before = set(sys.modules)\n"
        "def refuse(*args): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import laion_ingest\n"
        # As Airflow does to find the DAGs.
        "[isinstance(one, airflow.sdk.DAG) for one in vars(laion_ingest).values()]\n"
        f"print([m for m in {HEAVY_MODULES!r} if m in sys.modules and m not in before])\n"
    )
    dags = str(Path(__file__).parents[2] / "dags")

    done = subprocess.run(
        [sys.executable, "-c", program, dags], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_backfill_can_be_asked_for_every_reason() -> None:
    assert backfill_params()["which"].schema["enum"] == list(WHICH)


def test_a_dag_file_fits_on_two_screens() -> None:
    for file in (Path(__file__).parents[2] / "dags").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 150, file.name
