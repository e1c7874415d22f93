"""`airflow standalone`, broken in ways that are seen only when it really runs.

Each start takes half a minute; nothing less has a main process to lose, or DAGs to read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from laion.errors import ProcessFailed
from laion.sample.family import family
from laion.sample.stack import Stack


def test_a_dag_that_cannot_be_read_ends_the_start_with_its_error(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "laion_ingest.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    stack = Stack(tmp_path / "stack", {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)})

    with pytest.raises(ProcessFailed, match="No module named 'no_such_module'"):
        stack.start()

    assert family(stack.state) == []
