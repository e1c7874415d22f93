"""Modules that are imported when a task uses them, so that parsing a DAG file stays light."""

from __future__ import annotations

import importlib
from typing import Any


class LaterModule:
    """Stands for a module, which is imported when an attribute of it is first read.

    The standard library's LazyLoader would not do: Airflow asks everything in a DAG file whether
    it is a DAG, and that is reading an attribute, `__class__`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
