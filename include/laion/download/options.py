"""How patient and how greedy a download is."""

from __future__ import annotations

from dataclasses import dataclass, field

from laion.s3 import S3Options


@dataclass(frozen=True)
class DownloadOptions:
    """Limits of one download.

    `tries` counts tries in a row that brought nothing new; between them it waits `first_wait_s`,
    then twice as long each time. A source that asks for patience gets up to `longest_wait_s`
    here; beyond, the task is given back and tried later. `connections` bounds the files that one
    shard fetches at once. `s3` is for sources on S3.
    """

    connect_timeout_s: float = 10
    read_timeout_s: float = 60
    tries: int = 3
    first_wait_s: float = 1
    longest_wait_s: float = 30
    connections: int = 3
    checksum: bool = True
    s3: S3Options = field(default_factory=S3Options)

    @property
    def timeouts(self) -> tuple[float, float]:
        """What `requests` takes: seconds to connect, seconds between two reads."""
        return (self.connect_timeout_s, self.read_timeout_s)
