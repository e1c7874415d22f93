"""What is loaded before a task process is forked need not be loaded in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DAGS = Path(__file__).parents[3] / "dags"
THEIRS = ("airflow", "numpy", "pyarrow", "clickhouse_connect", "requests", "pydantic_settings")

TASK = f"""
import sys
import laion.orchestration.preload
before = set(sys.modules)
sys.path.insert(0, {str(DAGS)!r})
import laion_ingest
laion_ingest.shard_tasks.download
print(sorted(name for name in set(sys.modules) - before if name.split(".")[0] in {THEIRS!r}))
"""


def test_a_task_of_a_shard_imports_next_to_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TASK],
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"
