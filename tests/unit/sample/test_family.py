"""Real processes, which start others, ignore signals, lose their parents, and hide."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from laion.sample import family as families
from laion.sample.family import MARK, end, family, lost_children
from laion.sample.processes import Process, start, still_running
from tests.embedded_server import poll

SLEEP = "import time; time.sleep(600)"
START_ANOTHER = f"""
import subprocess, sys
def another(code={SLEEP!r}, **more):
    return subprocess.Popen([sys.executable, '-c', code], **more)
"""

Launch = Callable[..., Process]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts a Python program and waits until its family has so many members."""
    started = []

    def run(code: str, members: int = 1, name: str = "child") -> Process:
        command = [sys.executable, "-c", START_ANOTHER + code]
        process = start(name, command, tmp_path / f"{name}.log", dict(os.environ))
        started.append(process)
        poll(lambda: len(family(process.log)) == members and "ready" in process.log.read_text())
        return process

    yield run
    for process in started:
        process.kill()


def test_a_child_is_stopped_with_what_it_has_started_in_groups_of_their_own(
    launch: Launch,
) -> None:
    child = launch(f"another(process_group=0); print('ready', flush=True); {SLEEP}", members=2)

    child.stop()

    assert family(child.log) == []
    assert not child.is_running


def test_what_a_killed_child_has_started_is_stopped(launch: Launch) -> None:
    child = launch(f"another(process_group=0); print('ready', flush=True); {SLEEP}", members=2)
    os.kill(child.pid, signal.SIGKILL)
    poll(lambda: len(family(child.log)) == 1)

    child.stop()

    assert family(child.log) == []


def test_a_session_of_its_own_does_not_hide_a_process(launch: Launch) -> None:
    child = launch(f"another(start_new_session=True); print('ready', flush=True); {SLEEP}", 2)

    child.stop()

    assert family(child.log) == []


def test_an_empty_environment_does_not_hide_a_process(launch: Launch) -> None:
    child = launch(f"another(env={{}}); another(); print('ready', flush=True); {SLEEP}", 3)
    os.kill(child.pid, signal.SIGKILL)
    poll(lambda: len(family(child.log)) == 2)

    child.stop()

    assert family(child.log) == []


def test_a_title_does_not_hide_a_process(launch: Launch) -> None:
    title = "from setproctitle import setproctitle; setproctitle(300 * 'x')"

    launch(f"{title}; print('ready', flush=True); {SLEEP}")


def test_hidden_memory_does_not_hide_a_process(launch: Launch) -> None:
    """Airflow does this to its supervisors; root sees them all the same."""
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"
    child = launch(f"another({f'{hide}; {SLEEP}'!r}); print('ready', flush=True); {SLEEP}", 2)

    child.stop()

    assert family(child.log) == []


def test_an_own_child_is_stopped_that_has_lost_its_environment(tmp_path: Path) -> None:
    title = "import setproctitle, time; setproctitle.setproctitle(300 * 'x'); print('ready')"
    command = ["env", "-u", "SPT_NOENV", sys.executable, "-uc", f"{title}; {SLEEP}"]
    child = start("child", command, tmp_path / "child.log", dict(os.environ))
    poll(lambda: "ready" in child.log.read_text())
    assert family(child.log) == []

    child.stop()

    assert not child.is_running


def test_what_ignores_sigterm_is_killed(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "STOP_TIMEOUT_S", 0.2)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = launch(f"{ignore}; print('ready', flush=True); {SLEEP}")

    child.stop()

    assert family(child.log) == []


def test_sigterm_is_sent_once_so_that_an_orderly_end_is_not_cut_short(
    launch: Launch, tmp_path: Path
) -> None:
    count = (
        "import signal, time\n"
        "terms = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: terms.append(1))\n"
        "print('ready', flush=True)\n"
        "while not terms: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "print('terms:', len(terms), flush=True)\n"
    )
    child = launch(count)

    child.stop()

    assert "terms: 1" in child.log.read_text()


def test_a_directory_stands_for_all_its_logs(launch: Launch, tmp_path: Path) -> None:
    one = launch(f"print('ready', flush=True); {SLEEP}", name="one")
    two = launch(f"print('ready', flush=True); {SLEEP}", name="two")

    assert {member.pid for member in family(tmp_path)} == {one.pid, two.pid}
    assert end(tmp_path) == []
    assert family(one.log, two.log) == []


def test_a_process_that_has_got_the_number_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True) as foreign:
        remembered = Process("child", foreign.pid, log)

        assert not remembered.is_running
        remembered.stop()

        assert foreign.poll() is None
        foreign.kill()


def test_a_shell_lives_on_in_which_a_command_is_run_with_a_member_s_environment(
    launch: Launch, tmp_path: Path
) -> None:
    log = tmp_path / "child.log"
    code = START_ANOTHER + f"another(env={{{MARK!r}: {str(log)!r}}}).wait(); {SLEEP}"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as shell:
        poll(lambda: len(family(log)) == 1)

        assert end(log) == []

        assert shell.poll() is None
        shell.kill()


def test_a_child_that_nobody_has_noticed_the_end_of_is_lost(launch: Launch) -> None:
    code = f"another('pass'); another(); print('ready', flush=True); {SLEEP}"
    child = launch(code, members=2)

    # The first of the two may still be on its way to its end.
    poll(lambda: len(lost_children(child.pid, for_s=0.01)) == 1)


def test_an_error_names_what_could_not_be_ended(launch: Launch) -> None:
    child = launch(f"print('ready', flush=True); {SLEEP}")

    error = str(still_running(family(child.log)))

    assert f"{child.pid}  {sys.executable} -c" in error
