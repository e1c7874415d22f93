"""`airflow standalone`, broken in ways that are seen only when it really runs.

Each start takes half a minute; nothing less has a main process to lose, or DAGs to read.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from laion.errors import ProcessFailed
from laion.sample.family import family
from laion.sample.stack import Stack
from tests.embedded_server import poll


def test_a_stack_that_has_lost_airflow_s_main_process_is_started_again_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    stack, again = Stack(tmp_path / "stack"), Stack(tmp_path / "stack")
    try:
        os.kill(stack.start().pids["airflow"], signal.SIGKILL)
        poll(lambda: stack.running() is None)
        left = {member.identity for member in family(stack.state)}
        assert left

        info = again.start()

        assert left.isdisjoint(member.identity for member in family(stack.state))
        assert again.airflow_api(info).get("dags/laion_ingest")["dag_id"] == "laion_ingest"
    finally:
        assert again.stop()
        assert not stack.stop()
    assert family(stack.state) == []


def test_a_dag_that_cannot_be_read_ends_the_start_with_its_error(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "laion_ingest.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    stack = Stack(tmp_path / "stack", {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)})

    with pytest.raises(ProcessFailed, match="No module named 'no_such_module'"):
        stack.start()

    assert family(stack.state) == []
