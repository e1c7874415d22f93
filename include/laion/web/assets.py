"""The files that come with the pages: scripts and styles, served only to who may see the pages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file, and the tag by which a browser knows that it has it already."""

    content: bytes
    media_type: str
    etag: str


@cache
def read_assets() -> dict[str, Asset]:
    """Return every file of `static/` by name."""
    folder = files("laion.web") / "static"
    return {
        entry.name: _read(entry.name, entry.read_bytes())
        for entry in folder.iterdir()
        if any(entry.name.endswith(suffix) for suffix in MEDIA_TYPES)
    }


def _read(name: str, content: bytes) -> Asset:
    suffix = name[name.rindex(".") :]
    return Asset(content, MEDIA_TYPES[suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')
