"""The data of an INSERT as a file that the engine reads while they arrive.

chDB can also be given them piece by piece, but then it does not tell when writing them fails.

The file is an LZ4 frame whose blocks are not compressed: in a plain file the engine would seek, to
skip a few bytes at the end of its buffer, which a pipe does not let it.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from typing import Any

FRAME_START = bytes.fromhex("04224d18607073")
"""Magic number; independent blocks of up to 4 MiB, without checksums; checksum of these flags."""
FRAME_END = bytes(4)
MAX_BLOCK_BYTES = 4 << 20
NOT_COMPRESSED = 1 << 31


class Pipe:
    """A pipe whose reading end has a path in this process."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.write(self._write, FRAME_START)
        os.set_blocking(self._write, False)

    @property
    def path(self) -> Path:
        """Where the engine reads; it is kept waiting until `finish`."""
        return Path(f"/dev/fd/{self._read}")

    async def write(self, data: bytes, reading: asyncio.Future[Any]) -> None:
        """Write all of it, unless `reading` is over before."""
        for start in range(0, len(data), MAX_BLOCK_BYTES):
            block = memoryview(data)[start : start + MAX_BLOCK_BYTES]
            await self._write_all(struct.pack("<I", NOT_COMPRESSED | len(block)), reading)
            await self._write_all(block, reading)

    async def finish(self, reading: asyncio.Future[Any]) -> None:
        """End the data."""
        await self._write_all(FRAME_END, reading)
        self.cut()

    def cut(self) -> None:
        """End the file, wherever the data are."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        """Give it back; nobody may be reading any more."""
        self.cut()
        os.close(self._read)

    async def _write_all(self, data: bytes | memoryview, reading: asyncio.Future[Any]) -> None:
        left = memoryview(data)
        while left and not reading.done():
            try:
                left = left[os.write(self._write, left) :]
            except BlockingIOError:
                await self._wait_for_room(reading)

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
