"""The staging area: where the files of a shard lie between download and publication."""

from laion.storage.area import STALE_AFTER_S, StagingArea, Workspace
from laion.storage.bucket import BucketArea
from laion.storage.directory import DirectoryArea
from laion.storage.disk import disk_full_as_error, disk_full_error
from laion.storage.opening import open_staging

__all__ = [
    "STALE_AFTER_S",
    "BucketArea",
    "DirectoryArea",
    "StagingArea",
    "Workspace",
    "disk_full_as_error",
    "disk_full_error",
    "open_staging",
]
