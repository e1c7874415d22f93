"""Waiting for a child that starts: as long as it makes progress, and saying how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from laion.errors import ProcessFailed
from laion.sample.family import family
from laion.sample.processes import Process

POLL_S = 0.2

Stage = Callable[[], str | None]
"""Says what a child is at, such as 'Airflow: migrating its database'; None once it is ready."""


@dataclass(frozen=True)
class Patience:
    """When a wait gives up, when it speaks, and how often it looks, in seconds.

    It gives up when nothing has moved for `still_s`: neither the stage nor a log, and less than
    `cpu_s` of CPU time was used, which is idling. A stage that takes longer than `stage_s` will
    not end, however busy the child is.
    """

    still_s: float = 120
    cpu_s: float = 2
    stage_s: float = 900
    say_every_s: float = 10
    look_every_s: float = 1


PATIENCE = Patience()


def _print(line: str) -> None:
    print(line, flush=True)


def wait_until(
    process: Process, is_ready: Callable[[], bool], patience: Patience = PATIENCE
) -> None:
    """Wait for a child that has one stage only. Raises ProcessFailed as `wait_for` does."""
    wait_for(
        lambda: None if is_ready() else f"{process.name}: starting", process, patience=patience
    )


def wait_for(
    stage: Stage,
    *processes: Process,
    patience: Patience = PATIENCE,
    say: Callable[[str], None] = _print,
) -> None:
    """Wait until there is not a stage any more.

    Raises ProcessFailed, with the end of a log, when one of the processes has ended or when all of
    them stand still.
    """
    began = said = time.monotonic()
    progress = _Progress(processes, patience, began)
    while (reached := stage()) is not None:
        now = time.monotonic()
        for process in processes:
            if not process.is_running:
                raise failure(f"{process.name} has ended ({reached})", process)
        if stuck := progress.find_stuck(reached, now):
            raise failure(f"stuck ({reached}): {stuck}", *processes)
        if now - said >= patience.say_every_s:
            say(f"{reached} … {now - began:.0f} s")
            said = now
        time.sleep(POLL_S)


def failure(what: str, *processes: Process) -> ProcessFailed:
    """Return an error that says what happened, and how the logs end."""
    return ProcessFailed("\n".join([f"{what}.", *(process.log_tail() for process in processes)]))


class _Progress:
    """What was seen of some processes, and when it moved last."""

    def __init__(self, processes: tuple[Process, ...], patience: Patience, now: float) -> None:
        self._logs = [process.log for process in processes]
        self._patience = patience
        self._stages: set[str] = set()
        self._log_bytes = -1
        self._cpu_s = 0.0
        self._entered = self._moved = self._looked = now

    def find_stuck(self, stage: str, now: float) -> str:
        """Return why more waiting is of no use; nothing while there is progress."""
        patience = self._patience
        # A part that crashes again and again falls back to an earlier stage, and gains nothing.
        if stage not in self._stages:
            self._stages.add(stage)
            self._entered = self._moved = now
        if now - self._looked >= patience.look_every_s:
            self._looked = now
            self._look(now)
        if now - self._moved > patience.still_s:
            return f"nothing has moved for {now - self._moved:.0f} s"
        if now - self._entered > patience.stage_s:
            return f"it came no further in {now - self._entered:.0f} s, though it is busy"
        return ""

    def _look(self, now: float) -> None:
        log_bytes = sum(log.stat().st_size for log in self._logs)
        cpu_s = sum(member.cpu_s for member in family(*self._logs))
        # What has ended takes its time along, unless its parent took notice.
        if log_bytes != self._log_bytes or abs(cpu_s - self._cpu_s) >= self._patience.cpu_s:
            self._moved, self._log_bytes, self._cpu_s = now, log_bytes, cpu_s
