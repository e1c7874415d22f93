"""Prints docs/licences.md: the licences of what requirements.lock holds. Run by `make docs`."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
HEAD = """# Licences

Of the packages in `requirements.lock`, as each declares it; made by `make docs`.
The product itself is under the Apache License 2.0.

| package | version | licence |
| --- | --- | --- |"""


def licence_of(name: str) -> str:
    """Return what a package declares; raises PackageNotFoundError where it is not installed."""
    declared = metadata(name)
    if expression := declared.get("License-Expression"):
        return str(expression)
    classifiers = declared.get_all("Classifier", [])
    named = [
        c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: OSI Approved :")
    ]
    return "; ".join(named) or str(declared.get("License") or "not declared").splitlines()[0]


def main() -> None:
    """Print the table; what other systems than this one need is told as not installed."""
    print(HEAD)
    lock = (PROJECT / "requirements.lock").read_text()
    for name, version in sorted(set(re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, re.MULTILINE))):
        try:
            licence = licence_of(name)
        except PackageNotFoundError:
            licence = "not installed on Linux with CPython 3.11"
        print(f"| {name} | {version} | {licence} |")


if __name__ == "__main__":
    main()
