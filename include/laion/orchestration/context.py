"""Settings and connections of this installation as the library takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from laion.clickhouse.shards.pull import S3Access
from laion.download import DownloadOptions
from laion.orchestration.connections import read_s3_options
from laion.s3 import S3Options
from laion.settings import get_settings
from laion.storage import StagingArea, open_staging
from laion.urls import is_s3


def download_options(urls: Iterable[str]) -> DownloadOptions:
    """Return how one download of several at once, of these URLs, may behave."""
    settings = get_settings()
    conn_id = settings.source_s3_conn_id or settings.s3_conn_id
    return DownloadOptions(
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        connections=max(1, settings.max_connections // settings.max_parallel_downloads),
        s3=read_s3_options(conn_id) if any(map(is_s3, urls)) else S3Options(),
    )


def survey_options(urls: Iterable[str]) -> DownloadOptions:
    """Return how requests for headers alone, while nothing is fetched, may behave."""
    return replace(download_options(urls), connections=get_settings().max_connections)


def staging_area() -> StagingArea:
    settings = get_settings()
    uri = settings.staging_uri
    s3 = read_s3_options(settings.s3_conn_id) if is_s3(uri) else S3Options()
    return open_staging(uri, settings.max_shards_in_flight, settings.scratch_dir, s3)


def staging_access() -> S3Access:
    """Return how ClickHouse reads a staging area on S3."""
    settings = get_settings()
    s3 = read_s3_options(settings.s3_conn_id)
    return S3Access(settings.staging_uri, s3, settings.clickhouse_s3_collection)
