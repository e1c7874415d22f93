"""What inverted lists need: memory, disk, CPU of builds and searches. Fitted on 1,000,000 rows."""

from __future__ import annotations

from laion.clickhouse.search_table.kinds.kind import Estimate
from laion.clickhouse.search_table.kinds.narrow import CODE_BYTES
from laion.vectors import Dimensions

ROW_BYTES = 90
"""Of id, list, shard and what is filtered by, captions above all, in a narrow table, about."""
GRANULE_ROWS, GRANULE_BYTES = 16, 100
"""Rows of a granule, and bytes in memory of its primary key and marks: at most, about."""
ASSIGN_CPU_S, FILL_CPU_S = 25e-6, 60e-6
"""Of a row of 512 dimensions."""
LISTS_CPU_S = 0.15e-6
"""Of a search, for each list of 512 dimensions."""
SEARCH_CPU_S = 0.7e-6
"""Of a search, for each row of the lists that it reads: they lie apart."""
LEAST_SEARCH_CPU_S = 0.035
SHARE_READ = 0.125
"""Of the rows, for text-like queries at 1,000,000; it falls with the cube root of the rows."""
MOST_RANGES = 5_000
"""Lists that a search reads, times partitions: each is looked up for about 0.09 ms."""
LEAST_LIST_ROWS = 128
"""Of a list in a partition, on average: with fewer, much of the granules read is of other lists."""


def lists_read(rows: int, lists: int) -> int:
    """Return how many lists a text-like query reads, about."""
    return max(1, round(_share_read(rows) * lists))


def _share_read(rows: int) -> float:
    return min(1.0, SHARE_READ * float((1_000_000 / max(1, rows)) ** (1 / 3)))


def estimate(rows: int, dimensions: Dimensions, method: str, lists: int) -> Estimate:
    """Return what a table of so many rows and lists takes, with a method of the codec."""
    size, most = sum(dimensions.values()), max(dimensions.values())
    vectors = len(dimensions)
    codes = sum(one * CODE_BYTES[method] + 4 for one in dimensions.values())
    searched = lists * LISTS_CPU_S + _share_read(rows) * rows * SEARCH_CPU_S
    return Estimate(
        memory_bytes=int(rows / GRANULE_ROWS * GRANULE_BYTES * vectors + 2 * lists * size),
        disk_bytes=int(rows * (codes + 2 * size + (ROW_BYTES + 6) * vectors)),
        build_cpu_s=rows * (ASSIGN_CPU_S + FILL_CPU_S) * size / 512,
        search_cpu_s=LEAST_SEARCH_CPU_S + searched * most / 512,
    )
