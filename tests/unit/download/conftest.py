"""What the downloads of these tests have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from laion.download import DownloadOptions, FetchedFile, fetch_file
from laion.download.http import open_session

OPTIONS = DownloadOptions(connect_timeout_s=10, read_timeout_s=10, first_wait_s=0)

Fetch = Callable[..., FetchedFile]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The directory that files are fetched into."""
    directory = tmp_path / "attempt"
    directory.mkdir()
    return directory


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with open_session(3) as session:
        yield session


@pytest.fixture
def fetch(session: requests.Session, target: Path) -> Fetch:
    """Fetches a URL to `a.npy` in `target`."""

    def fetch(url: str, options: DownloadOptions = OPTIONS, **known: str) -> FetchedFile:
        return fetch_file(url, target / "a.npy", session, options, **known)

    return fetch
