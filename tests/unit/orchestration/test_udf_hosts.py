"""Deployment over SFTP to every host of a list: real SSH servers, each beside a ClickHouse."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.encoders.model import ModelDirectory
from laion.errors import (
    BadSetting,
    DeployInProgress,
    UdfCheckFailed,
    UdfHostRefused,
    UdfHostUnreachable,
    UdfTargetUnwritable,
)
from laion.orchestration.udf_hosts import find_targets, open_clients, open_hosts
from laion.settings import Settings
from laion.udf.checks import Expectation, check_functions
from laion.udf.deploy import Host, deploy_version, missing_functions
from laion.udf.directories import LOCK, locked
from laion.udf.options import WorkerOptions
from laion.udf.version import DEFINITION, UdfVersion, render_version
from tests.embedded_server import EmbeddedServer
from tests.models import write_model
from tests.ssh_server import SshServer

SETTINGS = Settings(
    udf_scripts_dir="/user_scripts",
    udf_functions_dir="/user_defined_functions",
    udf_ssh_conn_ids="ssh_a=clickhouse_a, ssh_b=clickhouse_b",
)
"""Both hosts have their directories at the same paths, as seen over SFTP."""

Deploy = Callable[..., bool]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedServer]]:
    with ExitStack() as stack:
        paths = [tmp_path_factory.mktemp(name) for name in ("a", "b")]
        yield [stack.enter_context(EmbeddedServer(path)) for path in paths]


@pytest.fixture
def ssh_servers(
    servers: list[EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[SshServer]]:
    """One on each host, with the Airflow connections to both; nothing is deployed yet."""
    with ExitStack() as stack:
        ssh_servers = [stack.enter_context(SshServer(server.path)) for server in servers]
        for name, ssh, server in zip("AB", ssh_servers, servers, strict=True):
            monkeypatch.setenv(f"AIRFLOW_CONN_SSH_{name}", ssh.airflow_connection())
            connection = json.dumps(server.airflow_connection)
            monkeypatch.setenv(f"AIRFLOW_CONN_CLICKHOUSE_{name}", connection)
        yield ssh_servers
    for server in servers:
        for path in deployed(server).values():
            path.unlink()
        with server.client() as client:
            client.command("SYSTEM RELOAD FUNCTIONS")


@pytest.fixture
def hosts(ssh_servers: list[SshServer]) -> Iterator[list[Host]]:
    with open_hosts(find_targets(SETTINGS), SETTINGS) as hosts:
        yield hosts


def deployed(server: EmbeddedServer) -> dict[str, Path]:
    """The files of a host, as they are on its disk."""
    directories = (server.path / "user_scripts", server.path / "user_defined_functions")
    return {path.name: path for directory in directories for path in directory.iterdir()}


def render(model: Path, threads: int = 1) -> UdfVersion:
    options = WorkerOptions(str(model), threads=threads)
    manifest = ModelDirectory.open(model).manifest
    return render_version(manifest, options, python=sys.executable, pool_size=1)


def check(version: UdfVersion, model: Path) -> Callable[[Client], None]:
    expected = Expectation(ModelDirectory.open(model).manifest, version.functions, pool_size=1)
    return lambda client: check_functions(client, expected)


def count_functions(server: EmbeddedServer) -> int:
    with server.client() as client:
        names = "SELECT count() FROM system.user_defined_functions WHERE load_status = 'Success'"
        return int(client.command(names))


def test_every_host_of_the_list_gets_the_functions(
    hosts: list[Host], servers: list[EmbeddedServer], model: Path
) -> None:
    version = render(model)

    assert deploy_version(hosts, version, check(version, model)) is True

    assert [host.name for host in hosts] == ["ssh_a (127.0.0.1)", "ssh_b (127.0.0.1)"]
    for server in servers:
        files = deployed(server)
        assert set(files) == {*version.scripts, DEFINITION}
        modes = {path.suffix: path.stat().st_mode & 0o777 for path in files.values()}
        assert modes == {".pyz": 0o755, ".json": 0o644, ".xml": 0o644}
        with server.client() as client:
            assert len(client.query("SELECT encode_text('a cat')").result_rows[0][0])
            assert missing_functions(client, version) == []

    before = [path.stat().st_mtime_ns for server in servers for path in deployed(server).values()]
    assert deploy_version(hosts, version, check(version, model)) is False
    after = [path.stat().st_mtime_ns for server in servers for path in deployed(server).values()]
    assert after == before


def test_a_check_that_fails_on_the_last_host_brings_all_back(
    hosts: list[Host], servers: list[EmbeddedServer], model: Path
) -> None:
    old, new = render(model, threads=1), render(model, threads=2)
    deploy_version(hosts, old, check(old, model))

    def refuse_on_b(client: Client) -> None:
        check(new, model)(client)
        if client is hosts[1].client:
            raise UdfCheckFailed("not on this host.")

    with pytest.raises(
        UdfCheckFailed, match=r"ssh_b \(.*\): not on this host\. The functions are those"
    ):
        deploy_version(hosts, new, refuse_on_b)

    for server, host in zip(servers, hosts, strict=True):
        assert set(deployed(server)) == {*old.scripts, DEFINITION}
        assert missing_functions(host.client, old) == []
        check(old, model)(host.client)


def test_a_host_that_goes_down_half_way_leaves_the_other_as_it_was(
    hosts: list[Host], servers: list[EmbeddedServer], ssh_servers: list[SshServer], model: Path
) -> None:
    version = render(model)

    def lose_b(client: Client) -> None:
        if client is hosts[1].client:
            ssh_servers[1].drop_connections()
            raise UdfCheckFailed("it is gone.")

    with pytest.raises(UdfCheckFailed, match=r"gone\. The previous version could not .* on ssh_b"):
        deploy_version(hosts, version, lose_b)
    with pytest.raises(UdfHostUnreachable, match=r"ssh_b \(127\.0\.0\.1\) over SFTP broke"):
        hosts[1].scripts.names()

    assert deployed(servers[0]) == {}
    assert count_functions(servers[0]) == 0


def test_a_deployment_to_one_host_keeps_another_out_of_all(
    hosts: list[Host], servers: list[EmbeddedServer], model: Path
) -> None:
    version = render(model)

    with locked(hosts[1].scripts), pytest.raises(DeployInProgress, match=LOCK):
        deploy_version(hosts, version, check(version, model))

    assert deployed(servers[0]) == deployed(servers[1]) == {}


def test_a_directory_that_is_not_there_is_named(ssh_servers: list[SshServer]) -> None:
    settings = SETTINGS.model_copy(update={"udf_scripts_dir": "/nowhere"})

    with open_hosts(find_targets(settings), settings) as hosts:
        for use in (hosts[0].scripts.names, lambda: hosts[0].scripts.write("name", b"content")):
            with pytest.raises(UdfTargetUnwritable, match=r"/nowhere of ssh_a \(127\.0\.0\.1\)"):
                use()
        with pytest.raises(UdfTargetUnwritable), locked(hosts[0].scripts):
            pass


def test_a_write_that_fails_leaves_no_part_and_the_old_file(
    hosts: list[Host], servers: list[EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts[0].scripts.write("name", b"old")

    def fail(*names: str) -> None:
        raise OSError("Failure")

    monkeypatch.setattr("paramiko.sftp_client.SFTPClient.posix_rename", fail)
    with pytest.raises(UdfTargetUnwritable):
        hosts[0].scripts.write("name", b"new")

    assert {path.name: path.read_bytes() for path in deployed(servers[0]).values()} == {
        "name": b"old"
    }


class TestTrust:
    """Who a host is, is known before anything is sent to it."""

    def open_with(self, monkeypatch: pytest.MonkeyPatch, connection: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_SSH_A", connection)
        with open_hosts(find_targets(SETTINGS), SETTINGS):
            pass

    @pytest.mark.parametrize("extra", [{}, {"no_host_key_check": True}])
    def test_a_host_of_unknown_key_is_refused_whatever_the_connection_says(
        self, ssh_servers: list[SshServer], monkeypatch: pytest.MonkeyPatch, extra: dict[str, bool]
    ) -> None:
        connection = ssh_servers[0].airflow_connection(
            host_key="", allow_host_key_change=True, **extra
        )

        with pytest.raises(UdfHostRefused, match="must be the `host_key`"):
            self.open_with(monkeypatch, connection)

    def test_a_host_with_another_key_is_refused(
        self, ssh_servers: list[SshServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = ssh_servers[0].airflow_connection(host_key=ssh_servers[1].host_key)

        with pytest.raises(UdfHostRefused, match="does not match"):
            self.open_with(monkeypatch, connection)

    def test_a_user_that_is_not_let_in_is_an_error(
        self, ssh_servers: list[SshServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(UdfHostRefused, match="does not let its user in"):
            self.open_with(monkeypatch, ssh_servers[0].airflow_connection(key="stranger"))

    def test_a_host_that_is_down_may_come_back(
        self, ssh_servers: list[SshServer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ssh_servers[1].drop_connections()

        with pytest.raises(UdfHostUnreachable, match="'ssh_b' does not answer"):
            self.open_with(monkeypatch, ssh_servers[0].airflow_connection())
        assert UdfHostUnreachable.retryable


def test_without_a_connection_of_its_own_a_hosts_clickhouse_is_asked_at_that_host(
    ssh_servers: list[SshServer], servers: list[EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {**servers[0].airflow_connection, "host": "clickhouse.invalid"}
    monkeypatch.setenv("AIRFLOW_CONN_CLICKHOUSE_DEFAULT", json.dumps(elsewhere))
    settings = SETTINGS.model_copy(update={"udf_ssh_conn_ids": "ssh_a"})

    with open_clients(find_targets(settings), settings) as clients:
        answers = {host: client.command("SELECT 1") for host, client in clients.items()}

    assert answers == {"ssh_a": 1}


@pytest.mark.parametrize("value", ["=clickhouse_a", "ssh_a=", "ssh_a,ssh_a", "ssh_a=b,ssh_a=c"])
def test_a_list_that_cannot_be_meant_is_refused(value: str) -> None:
    with pytest.raises(BadSetting, match="LAION_UDF_SSH_CONN_IDS"):
        find_targets(SETTINGS.model_copy(update={"udf_ssh_conn_ids": value}))
