"""What a ClickHouse server says of itself, and what it allows."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse import server as server_module
from laion.clickhouse.server import (
    free_disk_bytes,
    inspect_server,
    limiting_settings,
    missing_grants,
    read_server,
)
from laion.errors import ServerTooOld
from tests.embedded_server import EmbeddedServer

GB = 1_000_000_000


def test_it_tells_version_memory_cache_and_threads(client: Client) -> None:
    server = read_server(client)

    assert server.version == client.server_version
    assert server.memory_bytes is not None
    assert server.memory_bytes > GB
    assert server.index_cache_bytes is not None
    assert server.threads >= 1


def test_the_memory_given_is_believed(client: Client) -> None:
    assert read_server(client, 256 * GB).memory_bytes == 256 * GB


def test_a_server_without_these_tables_has_unknown_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are renamed, since no server without them can be had here."""
    monkeypatch.setattr(server_module, "FIGURES", (("absent_settings", "name"),))

    assert read_server(client).memory_bytes is None


def test_a_server_that_is_too_old_is_refused_with_the_reason(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "OLDEST_SERVER", (99, 1))

    with pytest.raises(ServerTooOld, match=r"need 99\.1 or later"):
        read_server(client)


def test_an_old_server_can_be_inspected_all_the_same(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "OLDEST_SERVER", (99, 1))

    assert inspect_server(client).is_old


def test_free_disk_is_that_of_the_servers_disks(client: Client) -> None:
    free = free_disk_bytes(client)

    assert free is not None
    assert free > 0


def test_a_setting_without_a_limit_is_not_told(
    clickhouse_server: EmbeddedServer, client: Client
) -> None:
    assert limiting_settings(client) == {}
    with clickhouse_server.client(settings={"max_execution_time": 60}) as limited:
        assert limiting_settings(limited) == {"max_execution_time": 60}


def test_a_user_who_may_do_everything_lacks_nothing(client: Client) -> None:
    assert missing_grants(client) == []


def test_a_server_that_cannot_say_leaves_it_open(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "read_grants", lambda *_: [("NO SUCH GRANT", "`d`.*")])

    assert missing_grants(client) is None
