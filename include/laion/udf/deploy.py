"""Brings a version of the functions to every host, and back again when it does not work.

On each host a version is complete, under names of its own, before the definition that ClickHouse
reads is exchanged for the new one in one rename. Only after the functions were called and found
right are the files of other versions removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from laion.clickhouse.client import Client, read_rows, typed_errors
from laion.clickhouse.statements import statement
from laion.errors import ClickHouseAuthFailed, UdfCheckFailed
from laion.udf.directories import Directory, locked
from laion.udf.version import DEFINITION, STORED_FILE, UdfVersion

log = logging.getLogger(__name__)

LOAD_TIMEOUT_S = 30
"""A server that may not be told to reload looks for itself every five seconds."""
POLL_S = 0.2
FILE_TIME_S = 1.1
"""ClickHouse tells by the time of the definition, in whole seconds, that it was exchanged."""

Check = Callable[[Client], None]


@dataclass(frozen=True)
class Host:
    """A ClickHouse server: its two directories, and a client that speaks to this very server."""

    name: str
    scripts: Directory
    functions: Directory
    client: Client


def deploy_version(
    hosts: Sequence[Host], version: UdfVersion, check: Check, owner: str = ""
) -> bool:
    """Make `version` the active one on all hosts; return whether anything had to be changed.

    `check` is called with each host's client and raises when the functions are not right; then
    all hosts get back the version they had. `owner` takes over from itself when it was killed
    before. Raises UdfCheckFailed, UdfTargetUnwritable,
    DeployInProgress, ClickHouseError.
    """
    with ExitStack() as locks:
        for host in hosts:
            locks.enter_context(locked(host.scripts, owner))
        before = {host.name: _version_to_return_to(host, version) for host in hosts}
        try:
            changed = [_write(host, version) for host in hosts]
            for host in hosts:
                _activate_and_check(host, version, check)
        except BaseException as error:
            lost = [host.name for host in hosts if not _roll_back(host, version, before[host.name])]
            if isinstance(error, UdfCheckFailed):
                outcome = (
                    f"The previous version could not be put back on {', '.join(lost)}."
                    if lost
                    else "The functions are those of before this deployment again."
                )
                raise UdfCheckFailed(f"{error} {outcome}") from error
            raise
        for host in hosts:
            _remove_others(host, version)
    return any(changed)


def _write(host: Host, version: UdfVersion) -> bool:
    """Write what differs, the definition last; return whether something did."""
    changed = False
    for name, content in version.scripts.items():
        if host.scripts.read(name) != content:
            host.scripts.write(name, content, executable=version.is_executable(name))
            changed = True
    if host.functions.read(DEFINITION) != version.definition:
        _put_definition(host, version.definition)
        log.info("%s: version %s is in place", host.name, version.sha)
        changed = True
    return changed


def _put_definition(host: Host, definition: bytes) -> None:
    time.sleep(FILE_TIME_S)
    host.functions.write(DEFINITION, definition)


def _activate_and_check(host: Host, version: UdfVersion, check: Check) -> None:
    try:
        _activate(host, version)
        check(host.client)
    except UdfCheckFailed as error:
        raise UdfCheckFailed(f"{host.name}: {error}") from error


def _activate(host: Host, version: UdfVersion) -> None:
    """Let the server read the definition unless it has, and wait until it says that it did.

    Reloading without need would end the processes of the pools.
    """
    with typed_errors("tell which functions it has"):
        has_status = host.client.query(statement("has_function_status")).result_rows[0][0]
        if not has_status:
            log.info("%s does not list its functions; calling them will tell", host.name)
            _reload(host.client)
            return
        if not _not_loaded(host.client, version):
            return
        _reload(host.client)
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while missing := _not_loaded(host.client, version):
            if time.monotonic() > deadline:
                raise UdfCheckFailed(f"it has not loaded {'; '.join(missing)}.")
            time.sleep(POLL_S)


def missing_functions(client: Client, version: UdfVersion) -> list[str]:
    """Return, for each function that is not there in this version, what the server says.

    Empty where the server does not list its functions: calling them will tell.
    """
    with typed_errors("tell which functions it has"):
        if not client.query(statement("has_function_status")).result_rows[0][0]:
            return []
        return _not_loaded(client, version)


def _not_loaded(client: Client, version: UdfVersion) -> list[str]:
    """Return, for each function that is not there in this version, what the server says."""
    parameters = {"names": list(version.functions)}
    status = {row["name"]: row for row in read_rows(client, "function_status", **parameters)}
    missing = []
    for name in version.functions:
        if (known := status.get(name)) is None:
            missing.append(f"{name}: it does not know it")
        elif not known["works"] or version.sha not in known["command"]:
            missing.append(f"{name}: {known['error'] or known['command']}")
    return missing


def _reload(client: Client) -> None:
    try:
        with typed_errors("reload functions"):
            client.command("SYSTEM RELOAD FUNCTIONS")
    except ClickHouseAuthFailed as error:
        log.info("Waiting for the server to look for new functions itself: %s", error)


def _version_to_return_to(host: Host, version: UdfVersion) -> bytes | None:
    """Return the definition in place, or, if that is this version's already, an earlier one's."""
    active = host.functions.read(DEFINITION)
    if active != version.definition:
        return active
    for name in host.scripts.names():
        match = STORED_FILE.fullmatch(name)
        if match and match[2] == "xml" and match[1] != version.sha:
            return host.scripts.read(name)
    return active


def _roll_back(host: Host, version: UdfVersion, before: bytes | None) -> bool:
    """Undo what can be undone, and return whether all was; it must not hide the reason for it."""
    if before == version.definition:
        return True
    try:
        if before is None:
            host.functions.remove(DEFINITION)
        else:
            _put_definition(host, before)
        for name in version.scripts:
            host.scripts.remove(name)
        _reload(host.client)
    except Exception:
        log.exception("%s: the previous version could not be put back", host.name)
        return False
    log.warning("%s: rolled back", host.name)
    return True


def _remove_others(host: Host, version: UdfVersion) -> None:
    for name in host.scripts.names():
        if STORED_FILE.fullmatch(name) and name not in version.scripts:
            host.scripts.remove(name)
