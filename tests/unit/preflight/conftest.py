"""A run that can succeed."""

from __future__ import annotations

from pathlib import Path

import pytest

from laion.clickhouse.search_table.plan import IndexOptions
from laion.datasets import load_profile
from laion.preflight import Run
from laion.storage import DirectoryArea
from laion.vectors import clip_vectors
from tests.shard_files import DIMENSION, spec_of, write_little_shard
from tests.unit.mirrors import Mirror


@pytest.fixture
def run(mirror: Mirror, shard_directory: Path, tmp_path: Path) -> Run:
    """Three good shards from a web server, and a search table."""
    for shard in range(3):
        write_little_shard(shard_directory, shard)
    return Run(
        profile=load_profile("clip_retrieval"),
        table="little",
        specs=[spec_of(mirror.url, shard, dimension=DIMENSION) for shard in range(3)],
        vectors=clip_vectors(DIMENSION),
        staging=DirectoryArea(tmp_path / "staging", capacity=2),
        index=IndexOptions(),
    )
