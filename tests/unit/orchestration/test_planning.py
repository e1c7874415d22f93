"""What `plan` refuses by itself; whole runs are tested in tests/dags and tests/system."""

from __future__ import annotations

import pytest

from laion.errors import TooManyShards
from laion.orchestration.planning import _check_map_length


def test_more_shards_than_airflow_maps_are_refused_with_the_settings_name() -> None:
    with pytest.raises(TooManyShards, match=r"AIRFLOW__CORE__MAX_MAP_LENGTH.*'0-1023'"):
        _check_map_length(list(range(1025)))


def test_as_many_shards_as_airflow_maps_are_fine() -> None:
    _check_map_length(list(range(1024)))
