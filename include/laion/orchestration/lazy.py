"""Modules that are imported when a task uses them, so that parsing a DAG file stays light."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def import_later(name: str) -> ModuleType:
    """Return a module that is executed when an attribute of it is first read."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
