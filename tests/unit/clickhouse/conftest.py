"""Claims on a search table need not wait long here: the server is on the same machine."""

from __future__ import annotations

import pytest

from laion.clickhouse.search_table import lease


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)
