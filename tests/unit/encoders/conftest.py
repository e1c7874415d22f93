"""One small model for all tests of the encoders; tests that alter one write their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))
