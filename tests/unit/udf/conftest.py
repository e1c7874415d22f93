"""A model and a deployed bundle, run as ClickHouse runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from laion.udf.bundle import build_bundle
from laion.udf.options import WorkerOptions
from tests.embedded_server import EmbeddedServer
from tests.models import write_model
from tests.unit.udf.target import Target
from tests.unit.udf.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def bundle_bytes() -> bytes:
    return build_bundle(sys.executable)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The directory that `encode_image` may read."""
    directory = tmp_path / "pictures"
    directory.mkdir()
    return directory


@pytest.fixture
def start_worker(
    tmp_path: Path, bundle_bytes: bytes, model: Path, pictures: Path
) -> Iterator[StartWorker]:
    """Starts a worker; every process is ended after the test."""
    started: list[WorkerProcess] = []

    def start(function: str, **options: Any) -> WorkerProcess:
        bundle = tmp_path / "laion_udf_test.pyz"
        bundle.write_bytes(bundle_bytes)
        bundle.chmod(0o755)
        chosen = WorkerOptions(**{"model_dir": str(model), "image_root": str(pictures), **options})
        bundle.with_suffix(".json").write_bytes(chosen.to_json())
        started.append(WorkerProcess(bundle, function))
        return started[-1]

    yield start
    for worker in started:
        worker.end()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def target(server: EmbeddedServer, model: Path, pictures: Path) -> Iterator[Target]:
    with server.client(autogenerate_session_id=False) as client:
        target = Target(client, server.path, model, pictures)
        yield target
        for path in [*target.scripts.iterdir(), *target.definition.parent.iterdir()]:
            path.unlink()
        client.command("SYSTEM RELOAD FUNCTIONS")
