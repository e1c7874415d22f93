"""What a ClickHouse server is, has and allows: version, memory, disks, settings, grants."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.statements import statement
from laion.clickhouse.users import read_grants
from laion.errors import ClickHouseAuthFailed, ClickHouseError, ServerTooOld

log = logging.getLogger(__name__)

OLDEST_SERVER = (25, 8)
"""The first whose vector index is complete."""

FIGURES = (("server_settings", "name"), ("asynchronous_metrics", "metric"))
"""System tables that tell of memory, and their column of names; not every server has both."""

CODEC_SETTINGS = (
    "enable_quantized_codec",
    "allow_experimental_codecs",
    "vector_search_use_quantized_codes",
)
"""What the codec Quantized needs: 26.9 has the first setting, 26.7 the second; the third is that
of searches."""

SETTINGS = ("readonly", "max_execution_time", "max_memory_usage")
"""Settings of the connection's user that can end a load or a build before its time."""


@dataclass(frozen=True)
class ServerFacts:
    """What a ClickHouse server says of itself; None where it does not tell.

    `codec_setting` is the setting by which it allows the codec Quantized; None where it has none.
    `free_bytes` are of its disks.
    """

    version: str
    memory_bytes: int | None
    index_cache_bytes: int | None
    threads: int
    codec_setting: str | None = None
    free_bytes: int | None = None

    @property
    def is_old(self) -> bool:
        """Return whether its vector index lacks something that is needed."""
        return tuple(int(number) for number in self.version.split(".")[:2]) < OLDEST_SERVER


def inspect_server(client: Client, memory_bytes: int | None = None) -> ServerFacts:
    """Ask a server what it is and has; `memory_bytes`, if given, is believed instead."""
    with typed_errors("say what it is"):
        version, threads = client.query(
            "SELECT version(), toUInt32(getSetting('max_threads'))"
        ).result_rows[0]
    figures: dict[str, float] = {}
    for table, key in FIGURES:
        figures |= _read_figures(client, table, key)
    total = figures.get("CGroupMemoryTotal") or figures.get("OSMemoryTotal")
    known = memory_bytes or figures.get("max_server_memory_usage") or total
    return ServerFacts(
        version=version,
        memory_bytes=int(known) if known else None,
        index_cache_bytes=_whole(figures.get("vector_similarity_index_cache_size")),
        threads=threads,
        codec_setting=read_codec_setting(client),
        free_bytes=free_disk_bytes(client),
    )


def read_codec_setting(client: Client) -> str | None:
    """Return the setting by which the server allows the codec Quantized; None where it has none."""
    with typed_errors("read its settings"):
        rows = client.query(
            "SELECT name FROM system.settings WHERE name IN {names:Array(String)}",
            parameters={"names": list(CODEC_SETTINGS)},
        ).result_rows
    known = {row[0] for row in rows}
    if "vector_search_use_quantized_codes" not in known:
        return None
    return next((name for name in CODEC_SETTINGS if name in known), None)


def read_server(client: Client, memory_bytes: int | None = None) -> ServerFacts:
    """Return what a server is that is to build a vector index. Raises ServerTooOld."""
    server = inspect_server(client, memory_bytes)
    if server.is_old:
        raise ServerTooOld(too_old(server))
    return server


def too_old(server: ServerFacts) -> str:
    """Return what is to be done about an old server."""
    return (
        f"the server is ClickHouse {server.version}; vector_similarity indexes need "
        f"{'.'.join(map(str, OLDEST_SERVER))} or later. Upgrade it, or start the run with "
        "build_index off."
    )


def free_disk_bytes(client: Client) -> int | None:
    """Return the free bytes of all disks of the server, or None where it does not tell."""
    try:
        with typed_errors("read system.disks"):
            rows = client.query("SELECT sum(unreserved_space) FROM system.disks").result_rows
    except ClickHouseAuthFailed as refused:
        log.info("%s", refused)
        return None
    return int(rows[0][0])


def limiting_settings(client: Client) -> dict[str, int]:
    """Return those of SETTINGS that are not 0, which stands for no limit."""
    with typed_errors("read its settings"):
        rows = client.query(
            "SELECT name, toInt64OrZero(value) FROM system.settings "
            "WHERE name IN {names:Array(String)}",
            parameters={"names": list(SETTINGS)},
        ).result_rows
    return {name: int(value) for name, value in rows if int(value)}


def missing_grants(client: Client) -> list[str] | None:
    """Return what the loader needs on its database and the user lacks, such as ALTER DELETE.

    None where the server cannot say.
    """
    with typed_errors("name its database"):
        database = str(client.command("SELECT currentDatabase()"))
    missing = []
    for privilege, target in read_grants("loader", database):
        # What is not granted on system tables is not told then; a run does without or says so.
        if target.startswith("system."):
            continue
        try:
            with typed_errors(f"check the grant {privilege}"):
                granted = client.command(
                    statement("check_grant", database=database, literals={"grant": privilege})
                )
        except ClickHouseError as error:
            # CHECK GRANT came with ClickHouse 24.10.
            log.info("%s", error)
            return None
        if not int(str(granted)):
            missing.append(privilege)
    return missing


def _read_figures(client: Client, table: str, key: str) -> dict[str, float]:
    """Return a system table of names and numbers; nothing where it is absent or forbidden."""
    query = (
        f"SELECT {key}, toFloat64OrZero(toString(value)) FROM system.{table} "
        f"WHERE {key} IN ('max_server_memory_usage', 'vector_similarity_index_cache_size', "
        "'CGroupMemoryTotal', 'OSMemoryTotal')"
    )
    try:
        with typed_errors(f"read system.{table}"):
            known = client.command(f"EXISTS TABLE system.{table}")
            rows = client.query(query).result_rows if known else []
            return {row[0]: row[1] for row in rows}
    except ClickHouseAuthFailed as refused:
        log.info("%s", refused)
        return {}


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
