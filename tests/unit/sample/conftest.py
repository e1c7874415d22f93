"""The sample dataset, written once for all tests of this directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from laion.sample.dataset import write_dataset


@pytest.fixture(scope="session")
def sample_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    write_dataset(directory)
    return directory
