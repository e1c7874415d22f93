"""Claims on a search table need not wait long here: the server is on the same machine."""

from __future__ import annotations

import pytest

from laion.clickhouse import builds


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "SETTLE_S", 0.05)
