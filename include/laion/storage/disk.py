"""A disk without room, as an error that says what to do."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from laion.errors import DiskFull


@contextlib.contextmanager
def disk_full_as_error(directory: Path, needed: str) -> Iterator[None]:
    """Turn 'no space left' inside the block into DiskFull, saying where and what is needed."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full_error(directory, needed) from error


def disk_full_error(directory: Path, needed: str) -> DiskFull:
    """Return the error that says where there is no room, what for and what to do."""
    free = shutil.disk_usage(directory).free
    return DiskFull(
        f"no room in {directory}: {needed}, {free:,} bytes free. Free some space, point "
        "LAION_STAGING_URI (LAION_SCRATCH_DIR with staging on S3) at a larger disk or lower "
        "LAION_MAX_SHARDS_IN_FLIGHT."
    )
