"""From the setting to the staging area."""

from __future__ import annotations

from pathlib import Path

from laion.errors import BadSource
from laion.s3 import S3Options, split_uri
from laion.storage.area import StagingArea
from laion.storage.bucket import BucketArea
from laion.storage.directory import DirectoryArea
from laion.urls import hide_credentials, is_local, is_s3, local_path


def open_staging(uri: str, capacity: int, scratch: Path, s3: S3Options) -> StagingArea:
    """Return the staging area of a URI; `scratch` and `s3` are for one on S3.

    Raises BadSource when the URI is of a kind that is not supported.
    """
    if is_local(uri):
        return DirectoryArea(local_path(uri), capacity)
    if is_s3(uri):
        bucket, prefix = split_uri(uri)
        return BucketArea(f"s3://{bucket}/{prefix}".rstrip("/"), capacity, scratch, s3)
    raise BadSource(
        f"LAION_STAGING_URI: {hide_credentials(uri)!r} is not supported for staging; use "
        "file:///a/directory that all workers share, or s3://bucket/prefix"
    )
