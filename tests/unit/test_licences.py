"""docs/licences.md lists what is locked."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_every_locked_package_is_listed_with_its_version_and_a_licence() -> None:
    lock = (PROJECT / "requirements.lock").read_text()
    listed = (PROJECT / "docs" / "licences.md").read_text().partition("| --- |")[2]

    packages = re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, re.MULTILINE)
    rows = dict(re.findall(r"^(\| [a-z0-9-]+ \| [^ ]+) \| (.+) \|$", listed, re.MULTILINE))
    assert set(rows) == {f"| {name} | {version}" for name, version in packages}
    assert "not declared" not in rows.values()
