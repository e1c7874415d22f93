"""`python -m tests.system.faults.matrix LINES`: the outcome of every scenario, as Markdown."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

TITLES = {
    "points": "Every step of a shard's way",
    "network": "Lines between worker, source and ClickHouse",
    "rivals": "Overlapping, late and repeated attempts",
    "resources": "Disks, memory, rights, clocks, the ledger",
    "index": "The search table",
    "deploy": "The SQL functions",
    "stack": "The whole stack",
}


def render(lines: list[dict[str, Any]]) -> str:
    """Return the page: one table a group, in the order of `TITLES`."""
    passed = sum(line["outcome"] == "passed" for line in lines)
    text = [
        "# The fault matrix",
        "",
        "Rows recorded by the scenarios of `make faults`; what is checked after every scenario, "
        "and what is not covered, is in [reliability.md](reliability.md).",
        "",
        f"{len(lines)} scenarios, {passed} as promised.",
    ]
    for group, title in TITLES.items():
        rows = sorted((line for line in lines if line["group"] == group), key=lambda r: r["done"])
        if rows:
            text += ["", f"## {title}", "", "| done | promised | happened | |", "|---|---|---|---|"]
            text += [_row(row) for row in rows]
    return "\n".join(text)


def _row(line: dict[str, Any]) -> str:
    sign = "✓" if line["outcome"] == "passed" else "✗"
    cells = [line["done"], line["promised"], _shorten(line["happened"]), sign]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _shorten(told: list[str]) -> str:
    """Say once what happened several times, without figures that differ from run to run."""
    counted = Counter(re.sub(r"^\d+ reads", "all reads", line) for line in told)
    return "; ".join(f"{line} ({n}×)" if n > 1 else line for line, n in counted.items())


def read(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file; of a scenario that was run again, the last."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return list({(line["group"], line["done"]): line for line in lines}.values())


if __name__ == "__main__":
    print(render(read(Path(sys.argv[1]))))
