"""How far a download is, told at a humane rate."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

INTERVAL_S = 30.0
MB = 1_000_000


class Progress:
    """Where the files that are fetched at once stand; told to the log every half minute.

    `report`, if given, is called as often with the bytes that are here. Safe to share between
    threads.
    """

    def __init__(
        self,
        label: str,
        report: Callable[[int], None] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.label = label
        self._report = report
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()
        self._here: dict[str, int] = {}
        self._sizes: dict[str, int | None] = {}
        self.fetched = 0

    @property
    def here(self) -> int:
        """Bytes that are here, fetched now or by an earlier try."""
        return sum(self._here.values())

    @property
    def total(self) -> int | None:
        """Bytes of all files begun so far, or None when a source does not tell."""
        sizes = [size for size in self._sizes.values() if size is not None]
        return sum(sizes) if len(sizes) == len(self._sizes) else None

    def set_file(self, name: str, here: int, size: int | None) -> None:
        """Say how much of a file is here, of how much."""
        with self._lock:
            self._here[name], self._sizes[name] = here, size

    def add(self, name: str, count: int) -> None:
        """Count bytes of a file that have just arrived."""
        with self._lock:
            self._here[name] += count
            self.fetched += count
            now = time.monotonic()
            if now - self._told < self._interval_s:
                return
            self._told = now
            line, here = self.describe(now), self.here
        log.info("%s", line)
        if self._report:
            self._report(here)

    def describe(self, now: float | None = None) -> str:
        """Return the state in one line: `shard 00000: 512 of 2,204 MB, 85.3 MB/s, 20 s left`."""
        seconds = max((now or time.monotonic()) - self._began, 1e-6)
        rate, total = self.fetched / seconds, self.total
        of_total = f" of {total / MB:,.0f}" if total else ""
        line = f"{self.label}: {self.here / MB:,.0f}{of_total} MB, {rate / MB:,.1f} MB/s"
        if total and rate and total > self.here:
            line += f", {(total - self.here) / rate:,.0f} s left"
        return line
