"""The connection `clickhouse_default`, working and not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from laion.errors import (
    BadSetting,
    ClickHouseAuthFailed,
    ClickHouseDatabaseMissing,
    ClickHouseError,
    ClickHouseUnreachable,
)
from laion.orchestration.connections import clickhouse_client, read_s3_options
from laion.s3 import S3Options
from tests.embedded_server import EmbeddedServer
from tests.tls_proxy import tls_in_front_of


def connect_to(monkeypatch: pytest.MonkeyPatch, connection: dict[str, object]) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(connection))


def test_the_schema_of_the_connection_is_the_database(
    clickhouse_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, {**clickhouse_server.airflow_connection, "schema": "system"})

    with clickhouse_client() as client:
        assert client.command("SELECT currentDatabase()") == "system"


@pytest.mark.parametrize(
    ("wrong", "error", "advice"),
    [
        ({"port": 1}, ClickHouseUnreachable, "check host, port and TLS"),
        ({"password": "wrong"}, ClickHouseAuthFailed, "check login and password"),
        ({"schema": "no_such_database"}, ClickHouseDatabaseMissing, "create it or correct"),
    ],
)
def test_a_connection_that_does_not_work_says_what_is_wrong_with_it(
    clickhouse_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, object],
    error: type[ClickHouseError],
    advice: str,
) -> None:
    connect_to(monkeypatch, {**clickhouse_server.airflow_connection, **wrong})

    with pytest.raises(error, match=advice), clickhouse_client():
        pass


def test_tls_is_a_matter_of_the_connection_and_strangers_certificates_are_refused(
    clickhouse_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tls_in_front_of(clickhouse_server.port, tmp_path) as (port, authority):
        known = {**clickhouse_server.airflow_connection, "port": port}
        trusting = {"secure": True, "client_kwargs": {"ca_cert": str(authority)}}

        connect_to(monkeypatch, {**known, "extra": trusting})
        with clickhouse_client() as client:
            assert client.command("SELECT 1") == 1

        connect_to(monkeypatch, {**known, "extra": {"secure": True}})
        with pytest.raises(ClickHouseUnreachable, match="TLS"), clickhouse_client():
            pass


def test_an_aws_connection_says_how_s3_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"endpoint_url": "http://minio:9000", "region_name": "eu-west-1"}
    connection = {"conn_type": "aws", "login": "AKIA", "password": "hush", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", json.dumps(connection))

    options = read_s3_options("my_s3")

    assert options == S3Options("AKIA", "hush", "", "http://minio:9000", "eu-west-1")
    assert "hush" not in repr(options)


def test_what_an_aws_connection_may_not_say_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"role_arn": "arn:aws:iam::1:role/x", "region_name": ""}
    monkeypatch.setenv("AIRFLOW_CONN_MY_S3", json.dumps({"conn_type": "aws", "extra": extra}))

    with pytest.raises(BadSetting, match=r"'my_s3' has role_arn; .*give the role to the workers"):
        read_s3_options("my_s3")
