"""What takes for ever fails a test instead of holding up the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 60
"""Generous: what is waited for takes a second or two, or for ever."""


@contextmanager
def patience(seconds: int = PATIENCE_S) -> Iterator[None]:
    """Interrupt the block after so long."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"this takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
