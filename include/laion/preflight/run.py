"""What a run is going to do, as far as it matters before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.shards.pull import S3Access
from laion.datasets import Profile
from laion.shards import ShardSpec
from laion.storage import StagingArea
from laion.vectors import Dimensions, Vector

ELEMENT_BYTES = {"Float32": 4, "BFloat16": 2}


@dataclass(frozen=True)
class Run:
    """What a run is going to do. `index` is None where no search table is to be built.

    `s3_access` is how ClickHouse reads a staging area on S3; a machine then downloads and converts
    up to so many shards at once.
    """

    profile: Profile
    table: str
    specs: Sequence[ShardSpec]
    vectors: Sequence[Vector]
    staging: StagingArea
    index: IndexOptions | None
    element_type: str = "Float32"
    server_memory_bytes: int | None = None
    s3_access: S3Access | None = None
    downloads_at_once: int = 1
    converts_at_once: int = 1

    @property
    def row_bytes(self) -> int:
        """What the vectors of a row take in ClickHouse."""
        return sum(self.dimensions.values()) * ELEMENT_BYTES[self.element_type]

    @property
    def dimensions(self) -> Dimensions:
        """The vectors as ClickHouse has them."""
        return {vector.name: vector.length for vector in self.vectors}
