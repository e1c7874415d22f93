from __future__ import annotations

import pytest
from pydantic import ValidationError

from laion.settings import Settings
from laion.urls import local_path


def test_every_setting_has_a_default() -> None:
    settings = Settings()

    assert settings.clickhouse_conn_id == "clickhouse_default"
    assert settings.max_shards_in_flight >= 1


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_setting_comes_from_its_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAION_SEARCH_BUCKETS", "16")

    assert Settings().search_buckets == 16


def test_files_are_staged_below_the_home_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/srv/my airflow")

    assert str(local_path(Settings().staging_uri)) == "/srv/my airflow/laion-staging"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAION_SEARCH_BUCKETS", "0"),
        ("LAION_SEARCH_BUCKETS", "65"),
        ("LAION_MAX_SHARDS_IN_FLIGHT", "many"),
        ("LAION_READ_TIMEOUT_S", "0"),
        ("LAION_RETRIES", "-1"),
    ],
)
def test_an_unusable_value_is_refused_with_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=name.removeprefix("LAION_").lower()):
        Settings()


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().retries = 5
