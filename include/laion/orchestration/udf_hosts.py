"""The ClickHouse hosts that functions are deployed to, from settings and Airflow connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk.bases.hook import BaseHook

from laion.clickhouse.client import Client
from laion.errors import BadSetting, UdfHostRefused, UdfHostUnreachable, UdfsNotPossible
from laion.orchestration.connections import connect
from laion.settings import Settings
from laion.udf.deploy import Host
from laion.udf.directories import LocalDirectory

if TYPE_CHECKING:
    from paramiko import SSHClient

CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Target:
    """A host by its Airflow connections; without an SSH connection, the one server at hand."""

    ssh_conn_id: str
    clickhouse_conn_id: str


def find_targets(settings: Settings) -> list[Target]:
    """Return where functions are deployed to. Raises UdfsNotPossible, BadSetting."""
    if not (settings.udf_scripts_dir and settings.udf_functions_dir):
        raise UdfsNotPossible(
            "LAION_UDF_SCRIPTS_DIR and LAION_UDF_FUNCTIONS_DIR do not name directories of the "
            "ClickHouse server; ClickHouse Cloud has none that could be written. Search encodes "
            "texts itself instead"
        )
    pairs = [pair.strip() for pair in settings.udf_ssh_conn_ids.split(",") if pair.strip()]
    targets = []
    for pair in pairs or ["="]:
        ssh, _, clickhouse = (part.strip() for part in pair.partition("="))
        if pairs and (not ssh or ("=" in pair and not clickhouse)):
            raise BadSetting(
                f"LAION_UDF_SSH_CONN_IDS: {pair!r} is neither the id of an SSH connection nor "
                "`ssh_conn=clickhouse_conn`"
            )
        targets.append(Target(ssh, clickhouse))
    if len({target.ssh_conn_id for target in targets}) < len(targets):
        raise BadSetting("LAION_UDF_SSH_CONN_IDS names a connection twice")
    return targets


@contextmanager
def open_hosts(targets: list[Target], settings: Settings) -> Iterator[list[Host]]:
    """Connect to every host, over SFTP or as a directory of this machine, and to its ClickHouse.

    Raises UdfHostUnreachable, UdfHostRefused, BadSetting, ClickHouseError.
    """
    with ExitStack() as stack:
        yield [_open_host(target, settings, stack) for target in targets]


@contextmanager
def open_clients(targets: list[Target], settings: Settings) -> Iterator[dict[str, Client]]:
    """Connect to the ClickHouse of every host only. Raises ClickHouseError."""
    with ExitStack() as stack:
        yield {
            target.ssh_conn_id or "ClickHouse": stack.enter_context(
                closing(_connect_clickhouse(target, settings))
            )
            for target in targets
        }


def _open_host(target: Target, settings: Settings, stack: ExitStack) -> Host:
    scripts, functions = settings.udf_scripts_dir, settings.udf_functions_dir
    client = stack.enter_context(closing(_connect_clickhouse(target, settings)))
    if not target.ssh_conn_id:
        directories = LocalDirectory(Path(scripts)), LocalDirectory(Path(functions))
        return Host("ClickHouse", *directories, client)
    # Comes with the extra `sftp` only.
    from laion.udf.sftp import SftpDirectory

    name = f"{target.ssh_conn_id} ({_host_of(target.ssh_conn_id)})"
    ssh = stack.enter_context(closing(_connect_ssh(target.ssh_conn_id)))
    sftp = stack.enter_context(closing(ssh.open_sftp()))
    return Host(
        name, SftpDirectory(name, sftp, scripts), SftpDirectory(name, sftp, functions), client
    )


def _connect_clickhouse(target: Target, settings: Settings) -> Client:
    if target.clickhouse_conn_id:
        return connect(target.clickhouse_conn_id)
    host = _host_of(target.ssh_conn_id) if target.ssh_conn_id else ""
    return connect(settings.udf_conn_id or settings.clickhouse_conn_id, host=host)


def _host_of(ssh_conn_id: str) -> str:
    host = BaseHook.get_connection(ssh_conn_id).host
    if not host:
        raise BadSetting(f"the Airflow connection {ssh_conn_id!r} names no host")
    return str(host)


def _connect_ssh(conn_id: str) -> SSHClient:
    """Connect to a host whose key is known, whatever the connection says about checking it."""
    try:
        from airflow.providers.ssh.hooks.ssh import SSHHook
        from paramiko import AuthenticationException, SSHException
    except ImportError as error:
        raise BadSetting(
            f"LAION_UDF_SSH_CONN_IDS needs the extra `sftp` of this package: {error}"
        ) from error
    try:
        # Airflow itself tries the task again.
        hook = SSHHook(conn_id, no_host_key_check=False, conn_retry_attempts=1)
        hook.allow_host_key_change = False
        hook.conn_timeout = hook.conn_timeout or CONNECT_TIMEOUT_S
        return hook.get_conn()
    except AuthenticationException as error:
        raise UdfHostRefused(
            f"the host of the connection {conn_id!r} does not let its user in: {error}. Check "
            "login and key."
        ) from error
    except ValueError as error:
        raise BadSetting(f"the connection {conn_id!r} cannot be used: {error}") from error
    except SSHException as error:
        raise UdfHostRefused(
            f"no trusted SSH connection to the host of {conn_id!r}: {error}. Its key must be the "
            "`host_key` in the extra of the connection, or be in known_hosts."
        ) from error
    except (OSError, EOFError) as error:
        raise UdfHostUnreachable(
            f"the host of the connection {conn_id!r} does not answer over SSH: {error}"
        ) from error
