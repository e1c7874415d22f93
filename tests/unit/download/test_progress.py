"""Progress is told in figures that a person can use, and not too often."""

from __future__ import annotations

import logging

import pytest

from laion.download import Progress

MB = 1_000_000


def begun(**how: object) -> Progress:
    progress = Progress("shard 00000", **how)
    progress.set_file("a.npy", here=100 * MB, size=400 * MB)
    progress.set_file("b.npy", here=0, size=600 * MB)
    return progress


def test_what_is_here_what_is_missing_and_how_fast_is_in_one_line() -> None:
    progress = begun()
    progress.add("b.npy", 50 * MB)

    line = progress.describe(now=progress._began + 10)

    assert line == "shard 00000: 150 of 1,000 MB, 5.0 MB/s, 170 s left"


def test_only_what_was_fetched_now_counts_for_the_rate() -> None:
    assert begun().describe().endswith("MB, 0.0 MB/s")


def test_a_source_that_tells_no_size_leaves_the_total_open() -> None:
    progress = begun()
    progress.set_file("c.npy", here=0, size=None)

    assert progress.describe().startswith("shard 00000: 100 MB, ")


def test_a_file_that_is_begun_again_counts_once() -> None:
    progress = begun()
    progress.set_file("a.npy", here=0, size=400 * MB)

    assert progress.here == 0
    assert progress.total == 1000 * MB


def test_it_is_logged_and_reported_once_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    reported: list[int] = []
    progress = begun(report=reported.append, interval_s=3600)
    with caplog.at_level(logging.INFO, "laion"):
        for _ in range(100):
            progress.add("b.npy", MB)
        assert caplog.messages == reported == []

        progress._told -= 3600
        progress.add("b.npy", MB)
        progress.add("b.npy", MB)

    assert len(caplog.messages) == 1
    assert reported == [201 * MB]
