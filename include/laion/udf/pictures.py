"""Opens pictures below one directory, for callers that nobody vouches for.

Any user of the server may call `encode_image` with any text. A name that leads out of the
directory, by `..` or a link, or to anything but a regular file, is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from laion.errors import BadImage, BadSetting

# O_NONBLOCK: opening a FIFO would otherwise wait for its writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def open_root(setting: str) -> Path:
    """Return the directory of pictures. Raises BadSetting when it cannot be looked into."""
    if not setting or not Path(setting).is_dir() or not os.access(setting, os.X_OK):
        raise BadSetting(
            f"LAION_UDF_IMAGE_ROOT: {setting!r} is not a directory here that user {os.geteuid()} "
            "may look into; every picture would be missing"
        )
    return Path(setting)


def open_picture(root: Path, name: str, max_bytes: int) -> BinaryIO:
    """Open the regular file `name` below `root` for reading.

    Links are followed as long as they stay below `root`. Raises BadImage; its message tells
    nothing of what lies elsewhere.
    """
    top = os.path.realpath(root)
    try:
        path = os.path.realpath(Path(top, name))
        if not _is_below(path, top):
            raise BadImage("outside the directory of pictures")
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise BadImage("no regular file")
        file = os.fdopen(os.open(path, _FLAGS), "rb")
    except (OSError, ValueError) as error:
        raise BadImage(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    try:
        _check(file, top, max_bytes)
    except BadImage:
        file.close()
        raise
    return file


def _check(file: BinaryIO, top: str, max_bytes: int) -> None:
    """Look at what was opened: between the checks of its name and now, links may have changed."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise BadImage("no regular file")
    if not _is_below(os.path.realpath(f"/proc/self/fd/{file.fileno()}"), top):
        raise BadImage("outside the directory of pictures")
    if status.st_size > max_bytes:
        raise BadImage(f"{status.st_size:,} bytes, more than {max_bytes:,}")


def _is_below(path: str, top: str) -> bool:
    return path.startswith(top.rstrip("/") + "/")
