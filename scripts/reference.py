"""Writes the parts of docs/ that are made from the code: `python scripts/reference.py [--check]`.

docs/dags.md is made of the DAGs; docs/operations.md has a part made of the errors.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

from laion import errors
from laion.errors import LaionError
from laion.orchestration.retries import Then, rule_for

PROJECT = Path(__file__).resolve().parents[1]
DAGS = PROJECT / "docs" / "dags.md"
OPERATIONS = PROJECT / "docs" / "operations.md"
DAG_ORDER = ("laion_ingest", "laion_backfill", "laion_monitor")
ERRORS_PART = re.compile(
    r"(?<=<!-- errors: made by `make docs` -->\n).*(?=<!-- end -->)", re.DOTALL
)


def render_dags(dags: dict[str, DAG]) -> str:
    """Return docs/dags.md: what each DAG tells of itself in the UI, its params and its tasks."""
    parts = [
        "# The DAGs\n\nMade from the DAGs by `make docs`: the texts are those that Airflow's UI "
        "shows with each."
    ]
    for dag_id in DAG_ORDER:
        dag = dags[dag_id]
        about = re.sub(r"^#", "##", (dag.doc_md or "").strip(), flags=re.MULTILINE)
        title, _, text = about.partition("\n")
        parts += [
            f"## `{dag_id}`: {title.lstrip('# ')}\n{text}",
            f"Schedule: {dag.schedule or 'none, it is triggered'}.",
            "| param | default | |\n| --- | --- | --- |\n" + _params(dag),
            "| task | may take | runs after |\n| --- | --- | --- |\n" + _tasks(dag),
        ]
    return "\n\n".join(parts) + "\n"


def render_errors() -> str:
    """Return a table for each family of errors: what it means, and whether it is tried again."""
    parts = []
    families = [error for error in _errors() if error.__base__ is LaionError]
    alone = [family for family in families if not _kinds(family)]
    for family in families:
        if family not in alone:
            parts.append(_table(f"### `{family.__name__}`: {_meaning(family)}", _kinds(family)))
    parts.append(_table("### Others", alone))
    return "\n".join(parts)


def _params(dag: DAG) -> str:
    rows = []
    for name in dag.params:
        param = dag.params.get_param(name)
        default = "" if param.value is None else f"`{param.value}`"
        about = (param.description or "").replace("<", "&lt;")
        rows.append(f"| `{name}` | {default} | {about} |")
    return "\n".join(rows)


def _tasks(dag: DAG) -> str:
    rows = []
    for task in dag.topological_sort():
        after = ", ".join(f"`{name}`" for name in sorted(task.upstream_task_ids))
        mapped = ", one for each" if task.is_mapped or task.task_id.startswith("ingest_") else ""
        rows.append(f"| `{task.task_id}`{mapped} | {task.execution_timeout} | {after} |")
    return "\n".join(rows)


def _errors() -> list[type[LaionError]]:
    found = vars(errors).values()
    return [e for e in found if inspect.isclass(e) and issubclass(e, LaionError)]


def _kinds(family: type[LaionError]) -> list[type[LaionError]]:
    return [e for e in _errors() if issubclass(e, family) and e is not family]


def _table(title: str, rows: list[type[LaionError]]) -> str:
    lines = [f"{title}\n", "| error | what it means | tried again |", "| --- | --- | --- |"]
    for error in rows:
        then = rule_for(error).then
        again = "no" if then is Then.FAIL else then.value.removeprefix("again, ")
        lines.append(f"| `{error.__name__}` | {_meaning(error)} | {again} |")
    return "\n".join(lines) + "\n"


def _meaning(error: type[LaionError]) -> str:
    return " ".join((error.__doc__ or "").split())


def main() -> int:
    bag = DagBag(PROJECT / "dags", bundle_path=PROJECT / "dags")
    operations = OPERATIONS.read_text()
    wanted = {
        DAGS: render_dags(bag.dags),
        OPERATIONS: ERRORS_PART.sub(lambda _: render_errors(), operations),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" in sys.argv:
            print(f"{path.relative_to(PROJECT)} is not what the code says: run `make docs`")
        else:
            path.write_text(wanted[path])
            print(f"{path.relative_to(PROJECT)} is written anew")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
