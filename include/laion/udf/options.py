"""What a worker is told: a JSON file beside the bundle, of the same name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

MAX_FILE_BYTES = 32 << 20
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class WorkerOptions:
    """Paths are those of the ClickHouse server; an empty `image_root` means: no pictures."""

    model_dir: str
    image_root: str = ""
    threads: int = 2
    max_file_bytes: int = MAX_FILE_BYTES
    max_pixels: int = MAX_PIXELS

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises OSError, ValueError or TypeError."""
        return cls(**json.loads(path.read_bytes()))

    def to_json(self) -> bytes:
        """Return the file's bytes; the same options always give the same."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"
