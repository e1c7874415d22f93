"""What the docs say of DAGs, errors and alerts is what the code says."""

from __future__ import annotations

import re
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from scripts.reference import DAGS, ERRORS_PART, OPERATIONS, render_dags, render_errors

from laion.orchestration.messages import Alert
from laion.orchestration.monitor import machine_checks, table_checks


def test_the_reference_of_the_dags_is_up_to_date(dag_bag: DagBag) -> None:
    assert DAGS.read_text() == render_dags(dag_bag.dags), "run `make docs`"


def test_the_runbook_lists_every_error() -> None:
    (part,) = ERRORS_PART.findall(OPERATIONS.read_text())

    assert part == render_errors(), "run `make docs`"


def test_the_runbook_has_a_section_on_every_alert_and_on_nothing_else() -> None:
    sections = re.findall(r"^### ([a-z-]+)$", OPERATIONS.read_text(), re.MULTILINE)
    nobody: Any = None
    checks = [*table_checks(nobody, "", ""), *machine_checks(nobody)]
    named = [alert for alert in Alert if alert is not Alert.MONITOR_FINDING]
    assert sorted(sections) == sorted(
        [*named, *(f"{Alert.MONITOR_FINDING}-{check}" for check in checks)]
    )
