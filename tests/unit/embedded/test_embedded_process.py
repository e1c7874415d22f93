"""The process: starting, stopping, crashing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from laion.embedded import __main__ as command_line
from tests.embedded_server import EmbeddedServer, poll, spawn_embedded


@pytest.fixture
def server(tmp_path):
    with EmbeddedServer(tmp_path / "a b&c", password="it's a secret") as server:
        yield server


def refusal(path, port) -> tuple[int, str, str]:
    process = spawn_embedded(path, port, "")
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_quietly(server, number):
    with server.client() as client:
        client.command("CREATE TABLE t (a UInt8) ORDER BY a")
        client.command("CREATE TEMPORARY TABLE u (a UInt8)")

    assert server.stop(number) == (0, "", "")


def test_it_starts_again_on_the_same_path(server):
    with server.client() as client:
        client.command("CREATE TABLE t (a UInt8) ORDER BY a")
    port = server.port
    server.stop()

    server.start(port)

    with server.client() as client:
        assert client.command("EXISTS t") == 1


def test_a_signal_ends_running_queries(server):
    def run() -> None:
        with server.client() as client, pytest.raises(ClickHouseError):
            client.query(
                "SELECT sum(sleepEachRow(1)) /* each(1000) */ FROM numbers(1000) "
                "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0"
            )

    running = threading.Thread(target=run)
    running.start()
    with server.client() as client:
        mine = "SELECT count() FROM system.processes WHERE query LIKE '%each(1000)%'"
        poll(lambda: client.command(mine) == 2)

    code, out, errors = server.stop()
    running.join()

    assert (code, out, errors) == (0, "", "")


def test_a_signal_ends_an_unfinished_insert(server):
    stopped = []

    def rows():
        yield b"1\n" * 1_000_000
        stopped.append(server.stop())
        yield b"1\n" * 1_000_000

    with server.client() as client:
        client.command("CREATE TABLE t (a UInt64) ORDER BY a")
        with pytest.raises(ClickHouseError):
            client.raw_insert("t", ["a"], rows(), fmt="TSV")

    assert stopped[0][:2] == (0, "")


def test_a_taken_port_is_refused(server, tmp_path):
    code, out, errors = refusal(tmp_path / "other", server.port)

    assert (code, out) == (1, "")
    assert f"cannot listen on 127.0.0.1:{server.port}" in errors
    assert errors.count("\n") == 1


def test_a_path_in_use_is_refused(server):
    code, out, errors = refusal(server.path, 0)

    assert (code, out) == (1, "")
    assert "is in use by another embedded ClickHouse" in errors
    assert errors.count("\n") == 1


def test_data_in_use_by_another_program_are_refused(tmp_path):
    hold = (
        "import sys, chdb; c = chdb.connect(sys.argv[1]); print(1, flush=True); input(); c.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        holder.stdout.readline()

        code, out, errors = refusal(tmp_path, 0)

        holder.communicate(b"\n")
    assert (code, out) == (1, "")
    assert "is in use by another process" in errors
    assert errors.count("\n") == 1


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()

    code, out, errors = refusal(tmp_path / "file" / "below", 0)

    assert (code, out) == (1, "")
    assert "cannot write to" in errors
    assert errors.count("\n") == 1


def test_a_crash_in_mid_insert_loses_only_that_insert(server):
    with server.client() as client:
        client.command("CREATE TABLE t (a UInt64) ORDER BY a")
        client.command("CREATE TABLE early (a UInt64) ORDER BY a")
        client.insert("early", [[n] for n in range(1000)], column_names=["a"])

    def rows():
        yield b"1\n" * 1_000_000
        server.kill()
        yield b"1\n" * 1_000_000

    (server.path / "spool" / "left-over").touch()
    with server.client() as client, pytest.raises(ClickHouseError):
        client.raw_insert("t", ["a"], rows(), fmt="TSV")
    server.start()

    assert list((server.path / "spool").iterdir()) == []
    with pytest.raises(DatabaseError, match="Authentication failed"):
        server.client(password="wrong")
    with server.client() as client:
        assert client.command("SELECT count() FROM early") == 1000
        assert client.command("SELECT count() FROM t") < 2_000_000
        client.insert("t", [[n] for n in range(10)], column_names=["a"])


def test_without_a_password_everybody_on_the_machine_may_enter(tmp_path):
    with EmbeddedServer(tmp_path, password="") as server, server.client() as client:
        assert client.command("SELECT currentUser()") == "default"


def test_user_defined_executable_functions_are_found(tmp_path):
    functions, scripts = tmp_path / "user_defined_functions", tmp_path / "user_scripts"
    functions.mkdir()
    scripts.mkdir()
    script = scripts / "twice.sh"
    script.write_text("#!/bin/sh\nwhile read -r n; do echo $((2 * n)); done\n")
    script.chmod(0o755)
    (functions / "twice_function.xml").write_text(
        "<functions><function><type>executable</type><name>twice</name>"
        "<return_type>UInt64</return_type><argument><type>UInt64</type></argument>"
        "<format>TabSeparated</format><command>twice.sh</command></function></functions>"
    )

    with EmbeddedServer(tmp_path) as server, server.client() as client:
        assert client.command("SELECT twice(21)") == 42


def test_the_help_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["laion.embedded", "--help"])

    with pytest.raises(SystemExit):
        command_line._parse_args()

    text = " ".join(capsys.readouterr().out.split())
    assert "stand-in for a ClickHouse server on one machine" in text
    assert "production uses a ClickHouse server" in text
