"""What belongs to a stack and what becomes of it, on parts that do nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from laion.errors import ProcessFailed, StackBusy
from laion.sample.family import family
from laion.sample.lock import clear, locked
from laion.sample.stack import Stack, StackInfo
from tests.embedded_server import poll

PROJECT = Path(__file__).parents[3]
SLEEP = "import time; time.sleep(600)"
# As `airflow standalone`, it does not notice when one of its own children ends.
PARENT = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
PROCESSES = 4


class SmallStack(Stack):
    """A stack whose parts sleep; one of them has a child, as Airflow has."""

    def _start(self) -> StackInfo:
        for part in self.ORDER:
            code = PARENT if part == "airflow" else SLEEP
            self._launch(part, [sys.executable, "-c", code], dict(os.environ))
        poll(lambda: len(family(self.state)) == PROCESSES)
        self.wait()
        pids = {name: process.pid for name, process in self._children.items()}
        return StackInfo("", "", "", 0, "", "", pids)

    def wait(self) -> None:
        """Be ready."""


class BrokenStack(SmallStack):
    def wait(self) -> None:
        raise ProcessFailed("it does not start")


START_FOR_EVER = """
import sys, time
from pathlib import Path
from tests.unit.sample.test_stack import SmallStack
class SlowStack(SmallStack):
    def wait(self): print("waiting", flush=True); time.sleep(600)
SlowStack(Path(sys.argv[1])).start()
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[SmallStack]:
    stack = SmallStack(tmp_path / "state")
    yield stack
    stack.stop()


def pids(stack: Stack) -> set[int]:
    return {member.pid for member in family(stack.state)}


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    poll(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")


def run_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "laion.sample.demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_running_stack_is_not_started_again(stack: SmallStack) -> None:
    info = stack.start()

    assert stack.start() == SmallStack(stack.state).start() == info
    assert len(pids(stack)) == PROCESSES


@pytest.mark.parametrize("part", SmallStack.ORDER)
def test_a_stack_that_has_lost_a_part_is_started_again_as_a_whole(
    stack: SmallStack, part: str
) -> None:
    before = stack.start().pids
    left = pids(stack) - {before[part]}
    kill(before[part])
    another = SmallStack(stack.state)
    assert another.running() is None

    after = another.start().pids

    assert left.isdisjoint(pids(stack))
    assert len(pids(stack)) == PROCESSES
    assert set(after.values()) <= pids(stack)
    another.stop()


def test_a_stack_whose_airflow_has_lost_a_part_does_not_run(stack: SmallStack) -> None:
    parts = set(stack.start().pids.values())
    (child,) = pids(stack) - parts

    kill(child)

    assert stack.running() is None
    assert stack.stop()
    assert pids(stack) == set()


@pytest.mark.parametrize("part", SmallStack.ORDER)
def test_a_stack_that_has_lost_a_part_is_stopped_by_another_command(
    stack: SmallStack, part: str
) -> None:
    kill(stack.start().pids[part])

    stopped, again = (run_demo("down", "--state", stack.state) for _ in range(2))

    assert stopped.stdout.split() == f"Stopped what was running in {stack.state}.".split()
    assert again.stdout.split() == f"Nothing was running in {stack.state}.".split()
    assert (stopped.returncode, again.returncode) == (0, 0)
    assert pids(stack) == set()


def test_a_start_that_was_killed_is_stopped_by_another_command(stack: SmallStack) -> None:
    command = [sys.executable, "-c", START_FOR_EVER, str(stack.state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT) as start:
        assert start.stdout is not None
        assert start.stdout.readline() == b"waiting\n"
        start.kill()
    assert len(pids(stack)) == PROCESSES

    assert stack.running() is None
    assert stack.stop()

    assert pids(stack) == set()
    assert not stack.stop()


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    stack = BrokenStack(tmp_path / "state")

    with pytest.raises(ProcessFailed):
        stack.start()

    assert pids(stack) == set()


def test_processes_are_left_alone_that_have_got_the_numbers_of_a_stack_s_parts(
    stack: SmallStack,
) -> None:
    info = stack.start()
    record = stack.info_file.read_text()
    stack.stop()
    with subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True) as foreign:
        numbers = dict.fromkeys(info.pids, foreign.pid)
        stack.info_file.write_text(json.dumps({**json.loads(record), "pids": numbers}))
        another = SmallStack(stack.state)

        assert another.running() is None
        assert not another.stop()

        assert foreign.poll() is None
        foreign.kill()


def test_only_the_user_may_read_where_a_stack_serves(stack: SmallStack) -> None:
    stack.start()

    assert stack.info_file.stat().st_mode & 0o077 == 0


def test_one_command_at_a_time_is_at_work_in_a_state_directory(tmp_path: Path) -> None:
    with locked(tmp_path / "state"):
        refused = run_demo("up", "--state", tmp_path / "state")

    assert refused.returncode == 1
    assert f"StackBusy: another command, process {os.getpid()}, is at work" in refused.stderr


def test_one_directory_that_is_busy_keeps_no_other_from_being_stopped(
    stack: SmallStack, tmp_path: Path
) -> None:
    stack.start()

    with locked(tmp_path / "busy"):
        stopped = run_demo("down", "--state", tmp_path / "busy", stack.state)

    assert stopped.returncode == 1
    assert "StackBusy" in stopped.stderr
    assert f"Stopped what was running in {stack.state}" in stopped.stdout.replace("\n", "")
    assert pids(stack) == set()


def test_a_command_that_was_killed_keeps_no_other_from_its_work(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from laion.sample.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StackBusy, match=str(holder.pid)), locked(tmp_path):
            pass
        holder.kill()

    with locked(tmp_path):
        pass


def test_a_state_directory_is_cleared_under_its_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "airflow.log").touch()
        (tmp_path / "stack.json").touch()

        clear(tmp_path)

        with pytest.raises(StackBusy), locked(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
