"""Settings of this installation as the library takes them."""

from __future__ import annotations

from dataclasses import replace

from laion.download import DownloadOptions
from laion.settings import get_settings
from laion.storage import StagingArea


def download_options() -> DownloadOptions:
    """Return how one download of several at once may behave."""
    settings = get_settings()
    return DownloadOptions(
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        connections=max(1, settings.max_connections // settings.max_parallel_downloads),
    )


def survey_options() -> DownloadOptions:
    """Return how requests for headers alone, while nothing is fetched, may behave."""
    return replace(download_options(), connections=get_settings().max_connections)


def staging_area() -> StagingArea:
    settings = get_settings()
    return StagingArea.from_uri(settings.staging_uri, settings.max_shards_in_flight)
