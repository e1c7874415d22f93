"""An Airflow that is too old is told so when it reads the DAGs."""

from __future__ import annotations

import pytest

from laion.errors import AirflowTooOld
from laion.orchestration import check_airflow


@pytest.mark.parametrize("version", ["2.11.2", "3.2.2"])
def test_an_airflow_that_is_too_old_is_named_with_what_is_needed(version: str) -> None:
    with pytest.raises(AirflowTooOld, match=rf"this is Airflow {version}; .* needs 3\.3 or newer"):
        check_airflow(version)


@pytest.mark.parametrize("version", ["3.3.0", "3.3.2", "3.10.0rc1", "4.0.0"])
def test_newer_ones_pass(version: str) -> None:
    check_airflow(version)
