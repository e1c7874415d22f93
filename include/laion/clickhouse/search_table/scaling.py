"""What several sizes of table need on clusters of several sizes: the table of docs/scaling.md."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence

from laion.clickhouse.search_table.kinds.hnsw.sizing import (
    AUTO_QUANTIZATIONS,
    MEMORY_SHARE,
    estimate_graphs,
)
from laion.clickhouse.search_table.plan import IndexOptions

ROW_BYTES = 200
"""What a row takes beside its vectors: an estimate, as preflight's."""
ELEMENT_BYTES = 4
"""Of the Float32 in a base table."""
LOAD_SERVER_CPU_S = 30e-6
"""CPU seconds of ClickHouse per row: load, validate and publish, of docs/performance.md."""
LOAD_WORKER_CPU_S = 33e-6
"""CPU seconds of workers per row: download, convert, load, validate, of docs/performance.md."""
LINK_BYTES_S = 125e6
"""1 Gbit/s, which all workers share."""
METADATA_BYTES = 155
"""Of a row in a metadata file of LAION-400M."""
HEADER = (
    "| rows | nodes | table, GB a node | index | its RAM and disk, GB a node | RAM a node, GB | "
    "disk a node, GB | fetch, h | load, h | build, h |\n| " + " | ".join(["---"] * 10) + " |"
)


def scaling_table(
    rows: Sequence[int], nodes: Sequence[int], *, dimension: int, vectors: int, threads: int
) -> str:
    """Return a Markdown table: a line for each number of rows, nodes and index quantization.

    Every node has `threads` cores and an equal part of the rows; workers have as many cores. RAM
    is what makes the index MEMORY_SHARE of it; disk is the base table, the search table with its
    index, and a second one of these while it is built anew; all hours but those of fetching, by
    one link of 1 Gbit/s, are CPU time spread over the cores. Figures are orders of magnitude.
    """
    lines = [HEADER]
    for total in rows:
        for count in nodes:
            lines += _lines(total, count, dimension, vectors, threads)
    return "\n".join(lines)


def _lines(total: int, nodes: int, dimension: int, vectors: int, threads: int) -> Iterator[str]:
    part = math.ceil(total / nodes)
    table = part * (vectors * dimension * ELEMENT_BYTES + ROW_BYTES) / 1e9
    fetch_s = total * (vectors * dimension * 2 + METADATA_BYTES) / LINK_BYTES_S
    load_s = part * max(LOAD_SERVER_CPU_S, LOAD_WORKER_CPU_S) / threads
    for quantization in AUTO_QUANTIZATIONS:
        options = IndexOptions(quantization=quantization)
        estimate = estimate_graphs(part, [dimension] * vectors, options)
        index = estimate.memory_bytes / 1e9
        cells = (
            f"{total:,}",
            str(nodes),
            f"{table:,.0f}",
            f"`{quantization}`",
            f"{index:,.0f}",
            f"{index / MEMORY_SHARE:,.0f}",
            f"{3 * table + 2 * index:,.0f}",
            f"{fetch_s / 3600:.1f}",
            f"{load_s / 3600:.2f}",
            f"{estimate.build_cpu_s / threads / 3600:.1f}",
        )
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print what tables of several sizes need on 1, 4 and 16 nodes."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.clickhouse.search_table.scaling", description=main.__doc__
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**7, 10**8, 407_314_954])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=2, help="columns with an index")
    parser.add_argument("--threads", type=int, default=16, help="cores of a node")
    args = parser.parse_args()
    sizes = {"dimension": args.dimension, "vectors": args.vectors, "threads": args.threads}
    print(scaling_table(args.rows, args.nodes, **sizes))


if __name__ == "__main__":
    main()
