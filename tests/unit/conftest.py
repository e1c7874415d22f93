"""Places for the shards of a test: a directory, a web server, a full disk; a loaded table."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import Ledger
from laion.datasets import load_profile
from laion.settings import get_settings
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import ORIGIN, TABLE, event, make_tables, publish_files
from tests.unit.mirrors import Mirror

SMALL_DISK_KIB = 64
PARAMS = {"dataset": "little", "index_metric": "L2Distance", "tolerate_failed_shards": 2}

Load = Callable[..., None]


@pytest.fixture
def ledger(client: Client) -> Ledger:
    """The ledger and an empty base table."""
    return make_tables(client)


@pytest.fixture
def load(client: Client, ledger: Ledger, shard_directory: Path, tmp_path: Path) -> Load:
    """Plans, loads and publishes shards; then the run's gate has looked at them."""

    def run(*shards: int, attempt: str = "aaaa0001", run_id: str = ORIGIN.run_id) -> None:
        ledger.append([event(shard, "plan", "planned", "", run_id=run_id) for shard in shards])
        ledger.record_run(
            ORIGIN,
            table=TABLE,
            dataset="little",
            source="https://mirror.example/little",
            shards="0-2",
            params=PARAMS,
        )
        for shard in shards:
            write_little_shard(shard_directory, shard)
            publish_files(client, shard_directory, shard, tmp_path, attempt=attempt)
        ledger.record_end(ORIGIN, table=TABLE, planned=len(shards), missing=0)

    return run


@pytest.fixture
def shard_directory(tmp_path: Path) -> Path:
    """Where a test writes the shards of its source."""
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


@pytest.fixture
def mirror(shard_directory: Path) -> Iterator[Mirror]:
    """Serves `shard_directory`."""
    with Mirror(shard_directory) as mirror:
        yield mirror


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KIB}k", "none", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted; run as root to test a full disk")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a shard's Parquet file is to be written."""
    directory = tmp_path / "attempt"
    directory.mkdir()
    return directory / "0.parquet"


@pytest.fixture
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of LAION_PROFILES_DIR."""
    monkeypatch.setenv("LAION_PROFILES_DIR", str(tmp_path))
    get_settings.cache_clear()
    load_profile.cache_clear()
    yield tmp_path
    get_settings.cache_clear()
    load_profile.cache_clear()
