from __future__ import annotations

from pathlib import Path

import pytest

from laion import machine
from laion.machine import STAGED_SHARD_BYTES, TASK_BYTES, fitting_shards, fitting_tasks


class Disk:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize(
    ("cores", "memory", "tasks"),
    [
        (1, 64 * TASK_BYTES, 1),
        (2, 24 * TASK_BYTES, 1),
        (16, 64 * TASK_BYTES, 8),
        (16, 8 * TASK_BYTES, 2),
        (16, TASK_BYTES, 1),
    ],
)
def test_tasks_take_half_the_cores_and_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, tasks: int
) -> None:
    monkeypatch.setattr(machine, "count_cores", lambda: cores)
    monkeypatch.setattr(machine, "read_memory", lambda: memory)

    assert fitting_tasks() == tasks


@pytest.mark.parametrize(
    ("cores", "room", "shards"), [(2, 100, 4), (16, 100, 32), (16, 20, 10), (16, 1, 2)]
)
def test_staged_shards_take_half_of_the_free_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, room: int, shards: int
) -> None:
    monkeypatch.setattr(machine, "count_cores", lambda: cores)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Disk(room * STAGED_SHARD_BYTES))

    assert fitting_shards(tmp_path / "not" / "there" / "yet") == shards


def test_this_machine_has_cores_and_memory() -> None:
    assert machine.count_cores() >= 1
    assert machine.read_memory() > 100_000_000
