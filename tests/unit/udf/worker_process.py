"""The other side of a worker's pipes: speaks to it as ClickHouse does."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from laion.udf.rowbinary import encode_varuint

END_TIMEOUT_S = 30
NOTHING_MORE_S = 0.2


class WorkerProcess:
    """A running worker. `call` sends a chunk and reads as many rows as it sent."""

    def __init__(self, bundle: Path, function: str) -> None:
        self._process = subprocess.Popen(
            [bundle, function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"CLICKHOUSE_PASSWORD": "secret"},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, *rows: bytes | str) -> list[npt.NDArray[np.float32]]:
        """Return the row's vectors; an empty one stands for a row without a result."""
        values = [row.encode() if isinstance(row, str) else row for row in rows]
        self.send(
            b"%d\n" % len(values) + b"".join(encode_varuint(len(value)) + value for value in values)
        )
        return [self._read_array() for _ in values]

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def has_more_output(self) -> bool:
        """Whether anything comes that was not asked for."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], NOTHING_MORE_S)
        return bool(ready)

    def end(self) -> tuple[int, str]:
        """Close its input; return the exit code and what it wrote to stderr."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.stdin = None
            _, self._errors = self._process.communicate(timeout=END_TIMEOUT_S)
        return self._process.returncode, self._errors.decode()

    def _read_array(self) -> npt.NDArray[np.float32]:
        assert self._process.stdout is not None
        length, shift = 0, 0
        while True:
            byte = self._process.stdout.read(1)
            if not byte:
                raise EOFError("the worker closed its output")
            length |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                break
            shift += 7
        return np.frombuffer(self._process.stdout.read(4 * length), "<f4")
