"""Worlds to break, and the matrix: a line per scenario of what was done, promised and seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from laion.sample.processes import Process, free_port, start
from laion.sample.waiting import wait_until
from tests.embedded_server import EmbeddedServer
from tests.receivers import WebHook
from tests.system.faults.proxy import FaultProxy
from tests.system.faults.world import World, fork

NewWorld = Callable[..., World]
FILLER = "filler"


@pytest.fixture(scope="session", autouse=True)
def no_fork_server_left() -> Iterator[None]:
    yield
    # The fork server is a child of this process that would otherwise end a moment after it.
    from multiprocessing.forkserver import _forkserver

    _forkserver._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A ClickHouse for scenarios that do not break it."""
    with EmbeddedServer(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A directory, and the port of the web server that serves it with ranges and ETags."""
    root = tmp_path_factory.mktemp("sources")
    port = free_port()
    code = "import sys; from laion.sample.server import serve; serve(sys.argv[1], int(sys.argv[2]))"
    command = [sys.executable, "-c", code, str(root), str(port)]
    log = tmp_path_factory.mktemp("log") / "source.log"
    process: Process = start("source", command, log, dict(os.environ, PYTHONUNBUFFERED="1"))
    try:
        wait_until(process, lambda: "http://" in log.read_text())
        yield root, port
    finally:
        process.stop()


@pytest.fixture
def new_world(
    tmp_path: Path, sources: tuple[Path, int], request: pytest.FixtureRequest
) -> Iterator[Callable[[EmbeddedServer], World]]:
    with ExitStack() as stack:

        def make(server: EmbeddedServer) -> World:
            database = f"w_{uuid.uuid4().hex[:10]}"
            with server.client() as client:
                client.command(f"CREATE DATABASE {database}")
            root, port = sources
            source = root / database
            source.mkdir()
            world = World(
                directory=tmp_path,
                source=source,
                server=server,
                database=database,
                clickhouse=stack.enter_context(FaultProxy(server.port)),
                mirror=stack.enter_context(FaultProxy(port)),
            )
            world.hook = stack.enter_context(WebHook())
            channel = {"config": {"path": world.hook.url, "tag": "all"}}
            world.env["AIRFLOW_CONN_LAION_ALERTS"] = json.dumps(
                {"conn_type": "apprise", "extra": channel}
            )
            request.node.user_properties.append(("told", world.told))
            return world

        yield make


@pytest.fixture
def world(new_world: NewWorld, shared_server: EmbeddedServer) -> World:
    """A world whose ClickHouse other scenarios use as well."""
    return new_world(shared_server)


@pytest.fixture
def fragile(new_world: NewWorld, tmp_path: Path) -> Iterator[World]:
    """A world whose ClickHouse may be killed."""
    with EmbeddedServer(tmp_path / "server") as server:
        yield new_world(server)


@pytest.fixture
def on_small_disk(new_world: NewWorld, tmp_path: Path) -> Iterator[World]:
    """A world whose ClickHouse has a file system of its own, with room for one more shard."""
    with small_disk(tmp_path / "disk", "256m") as disk, EmbeddedServer(disk) as server:
        yield new_world(server)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes, such as '4m'."""
    directory.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted; run as root to test a full disk")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill_disk(directory: Path, left: int = 256 << 10) -> None:
    """Fill the file system of a directory, but for some bytes, by the file FILLER."""
    with (directory / FILLER).open("wb") as file:
        file.write(bytes(shutil.disk_usage(directory).free - left))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file whose scenarios take longest: one process runs all of a file."""
    items.sort(key=lambda item: item.path.name != "test_stack.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Append the scenario's line to the file that FAULT_MATRIX names."""
    report: pytest.TestReport = yield
    mark, file = item.get_closest_marker("scenario"), os.environ.get("FAULT_MATRIX")
    if report.when == "call" and mark is not None and file:
        told = dict(item.user_properties).get("told", [])
        done = mark.kwargs["done"]
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            done = done.format(**item.callspec.params)
        line = {
            "group": Path(item.path).stem.removeprefix("test_"),
            "done": done,
            "promised": mark.kwargs["promised"],
            "happened": told,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
        }
        with Path(file).open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    return report


__all__ = ["FILLER", "fill_disk", "fork", "small_disk"]
