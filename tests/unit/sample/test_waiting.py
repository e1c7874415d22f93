"""Waiting for real children. With no patience at all, one look without progress is one too many."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from laion.errors import ProcessFailed
from laion.sample.family import family
from laion.sample.processes import Process, start
from laion.sample.waiting import Patience, wait_for, wait_until
from tests.embedded_server import poll

NONE = Patience(still_s=0, cpu_s=0.05, stage_s=900, say_every_s=600, look_every_s=0)
SLEEP = "import time; time.sleep(600)"
LOOKS = 5

Launch = Callable[[str], Process]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    started = []

    def run(code: str) -> Process:
        log = tmp_path / "child.log"
        started.append(start("child", [sys.executable, "-uc", code], log, dict(os.environ)))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def stages(
    happens: Callable[[int], object], name: Callable[[int], str]
) -> Callable[[], str | None]:
    """A stage that lasts for some looks; something happens before each."""
    looks = iter(range(LOOKS))

    def stage() -> str | None:
        look = next(looks, None)
        if look is None:
            return None
        happens(look)
        return name(look)

    return stage


def test_a_child_whose_log_grows_is_waited_for(launch: Launch) -> None:
    child = launch(SLEEP)

    def write(look: int) -> None:
        with child.log.open("a") as log:
            log.write("a line\n")

    wait_for(stages(write, lambda _: "starting"), child, patience=NONE)


def test_a_child_that_computes_is_waited_for(launch: Launch) -> None:
    child = launch("while True: pass")

    def spent() -> float:
        return sum(member.cpu_s for member in family(child.log))

    def compute(look: int) -> None:
        before = spent()
        poll(lambda: spent() >= before + NONE.cpu_s)

    wait_for(stages(compute, lambda _: "starting"), child, patience=NONE)


def test_a_child_that_comes_to_another_stage_is_waited_for(launch: Launch) -> None:
    wait_for(stages(lambda _: None, "stage {}".format), launch(SLEEP), patience=NONE)


def test_a_child_that_only_idles_is_given_up_with_its_stage_and_the_end_of_its_log(
    launch: Launch,
) -> None:
    child = launch(f"print('the last word'); {SLEEP}")
    poll(lambda: "word" in child.log.read_text())
    idle = replace(NONE, cpu_s=600)

    with pytest.raises(ProcessFailed) as failed:
        wait_for(lambda: "reading the DAGs", child, patience=idle)

    assert "stuck (reading the DAGs): nothing has moved" in str(failed.value)
    assert str(failed.value).endswith(f"The log {child.log} ends with:\nthe last word")


def test_a_child_that_falls_back_to_an_earlier_stage_makes_no_progress(launch: Launch) -> None:
    two = stages(lambda look: None, lambda look: f"stage {look % 2}")

    with pytest.raises(ProcessFailed, match="nothing has moved"):
        wait_for(two, launch(SLEEP), patience=NONE)


def test_a_child_that_is_busy_and_comes_no_further_is_given_up(launch: Launch) -> None:
    child = launch("while True: print('busy')")
    busy = replace(NONE, still_s=600, stage_s=0)

    with pytest.raises(ProcessFailed, match="came no further"):
        wait_for(lambda: "starting", child, patience=busy)


def test_a_child_that_ends_is_not_waited_for(launch: Launch) -> None:
    child = launch("print('it is too dark'); raise SystemExit(1)")

    with pytest.raises(ProcessFailed, match=r"child has ended \(child: starting\)") as failed:
        wait_until(child, lambda: False)

    assert "it is too dark" in str(failed.value)


def test_one_of_several_children_that_ends_is_named(launch: Launch, tmp_path: Path) -> None:
    other = start("other", [sys.executable, "-c", ""], tmp_path / "other.log", dict(os.environ))

    with pytest.raises(ProcessFailed, match="other has ended"):
        wait_for(lambda: "starting", launch(SLEEP), other)


def test_a_wait_says_the_stage_and_the_seconds_so_far(launch: Launch) -> None:
    said: list[str] = []
    talkative = replace(NONE, still_s=600, say_every_s=0)

    wait_for(
        stages(lambda _: None, "stage {}".format),
        launch(SLEEP),
        patience=talkative,
        say=said.append,
    )

    assert said == [f"stage {look} … {line.split()[-2]} s" for look, line in enumerate(said)]
    assert len(said) == LOOKS


def test_a_quick_start_is_silent(launch: Launch) -> None:
    said: list[str] = []
    patience = replace(NONE, still_s=600)

    wait_for(
        stages(lambda _: None, "stage {}".format), launch(SLEEP), patience=patience, say=said.append
    )

    assert said == []
