"""The task `deploy_udfs` in whole runs, alone and after a load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.sample.dataset import write_shard
from laion.sample.embeddings import model_embeddings
from laion.sample.model import MODELS, ensure_sample_model
from tests.dags.conftest import Run
from tests.embedded_server import EmbeddedServer

ALONE = {"dataset": "sample", "shards": "", "build_index": False, "deploy_udfs": True}


@pytest.fixture
def settings(
    clickhouse_server: EmbeddedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An installation that may deploy; other tests' server has no functions afterwards."""
    server = clickhouse_server.path
    for name, value in {
        "LAION_MODELS_DIR": MODELS,
        "LAION_UDF_SCRIPTS_DIR": server / "user_scripts",
        "LAION_UDF_FUNCTIONS_DIR": server / "user_defined_functions",
        "LAION_UDF_PYTHON": sys.executable,
    }.items():
        monkeypatch.setenv(name, str(value))
    yield
    for name in ("user_scripts", "user_defined_functions"):
        for path in (server / name).iterdir():
            path.unlink()
    client.command("SYSTEM RELOAD FUNCTIONS")


def test_words_find_items_after_a_run_and_deploying_again_changes_nothing(
    run_dag: Run, settings: None, client: Client, tmp_path: Path
) -> None:
    write_shard(tmp_path, 0, 400, model_embeddings(ensure_sample_model()))

    done = run_dag({**ALONE, "shards": "0", "source": tmp_path.as_uri(), "build_index": True})

    assert "state=success" in done.stdout, done.stdout + done.stderr
    found = client.query(
        "SELECT url FROM sample_near(q = encode_text('a cup of coffee'), k = 3)"
    ).result_rows
    assert all("/coffee/" in url for (url,) in found)

    again = run_dag(ALONE)
    assert "state=success" in again.stdout, again.stdout + again.stderr
    assert "was there already, and works" in again.stdout + again.stderr


def test_an_installation_without_directories_says_why(run_dag: Run) -> None:
    done = run_dag(ALONE)

    assert "state=success" in done.stdout, done.stdout + done.stderr
    assert "not possible here, because LAION_MODELS_DIR is not set" in done.stdout + done.stderr
