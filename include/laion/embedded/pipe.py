"""The data of an INSERT as a file that the engine reads while they arrive.

chDB can also be given them piece by piece, but then it does not tell when writing them fails.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any


class Pipe:
    """A pipe whose reading end has a path in this process."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    @property
    def path(self) -> Path:
        """Where the engine reads; it may open it late, and is kept waiting until `end`."""
        return Path(f"/dev/fd/{self._read}")

    async def write(self, data: bytes, reading: asyncio.Future[Any]) -> None:
        """Write all of it, unless `reading` is over before."""
        left = memoryview(data)
        while left and not reading.done():
            try:
                left = left[os.write(self._write, left) :]
            except BlockingIOError:
                await self._wait_for_room(reading)

    def end(self) -> None:
        """End the data."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        """Give it back; nobody may be reading any more."""
        self.end()
        os.close(self._read)

    async def _wait_for_room(self, reading: asyncio.Future[Any]) -> None:
        loop = asyncio.get_running_loop()
        has_room = asyncio.Event()
        loop.add_writer(self._write, has_room.set)
        waiting = asyncio.ensure_future(has_room.wait())
        try:
            await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(self._write)
            waiting.cancel()
