"""Files of a source onto this machine: whole and unchanged, or not at all."""

from laion.download.fetch import FetchedFile, fetch_file
from laion.download.options import DownloadOptions
from laion.download.progress import Progress
from laion.download.shard import changed_files, download_shard

__all__ = [
    "DownloadOptions",
    "FetchedFile",
    "Progress",
    "changed_files",
    "download_shard",
    "fetch_file",
]
