"""Places for the shards of a test: a directory, a web server, a full disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.mirrors import Mirror

SMALL_DISK_KIB = 64


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
