"""What a vector index will need, against what the server has: RAM, disk, CPU."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace

from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexTooLarge

METRICS = ("cosineDistance", "L2Distance")
ELEMENT_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "i8": 1.0, "b1": 1 / 8}
QUANTIZATIONS = tuple(ELEMENT_BYTES)
AUTO_QUANTIZATIONS = ("bf16", "i8", "b1")
"""What `auto` tries, best recall first. f16 takes the memory of bf16 and keeps the datasets' own
float16 exactly, but takes half as much CPU again, or twice as much, on CPUs that compute in
bfloat16 (AVX512-BF16: AMD since Zen 4, Intel since Sapphire Rapids); on older ones it is the
quicker of the two (docs/performance.md)."""
CONNECTIONS = {"b1": 16}
"""M where it is not DEFAULT_CONNECTIONS: beside bits for vectors, links would be most of it."""
DEFAULT_CONNECTIONS = 32
NODE_BYTES = 22
"""Per vector and graph beside vector and links: key, level, counters (usearch's layout)."""
BUILD_CPU_MS = {"f32": 3.0, "f16": 2.5, "bf16": 2.5, "i8": 1.4, "b1": 0.55}
"""CPU per vector of 512 dimensions with ef_construction 128, measured on 100,000: an order."""
MEMORY_SHARE = 0.7
"""Of a server's memory, what indexes may take; queries, merges and caches need the rest."""
GONE_INDEXES = {
    "annoy": "ClickHouse removed Annoy indexes in 2024 and usearch indexes in 2025",
    "usearch": "ClickHouse removed usearch indexes in 2025, and Annoy indexes before",
}


@dataclass(frozen=True)
class IndexOptions:
    """How the HNSW index is built; `m` is the connections of a vector per layer (0: by rule).

    A table has `buckets` partitions, or fewer as long as that gives less than `min_bucket_rows`.
    """

    metric: str = "cosineDistance"
    quantization: str = "bf16"
    m: int = 0
    ef_construction: int = 128
    buckets: int = 5
    min_bucket_rows: int = 10_000

    def __post_init__(self) -> None:
        for given in (self.metric, self.quantization):
            if given.lower() in GONE_INDEXES:
                raise BadRequest(
                    f"{GONE_INDEXES[given.lower()]}; the index of today is vector_similarity "
                    "(HNSW). docs/search.md maps the old options to its own."
                )
        if self.metric not in METRICS:
            raise BadRequest(f"index_metric: {self.metric!r} is none of {', '.join(METRICS)}")
        if self.quantization not in (*QUANTIZATIONS, "auto"):
            raise BadRequest(
                f"index_quantization: {self.quantization!r} is none of auto, "
                f"{', '.join(QUANTIZATIONS)}"
            )
        if self.quantization == "b1" and self.metric != "cosineDistance":
            raise BadRequest(
                f"index_quantization: ClickHouse builds b1 for cosineDistance only, not for "
                f"{self.metric}; choose another quantization, such as auto, or cosineDistance"
            )

    def resolved(self, quantization: str) -> IndexOptions:
        """Return these options with a quantization and with `m` decided."""
        m = self.m or CONNECTIONS.get(quantization, DEFAULT_CONNECTIONS)
        return replace(self, quantization=quantization, m=m)


@dataclass(frozen=True)
class IndexEstimate:
    """What indexes on every vector column need: bytes in RAM (and on disk), CPU seconds to build.

    RAM agrees with ClickHouse's own figure within a few per cent; CPU is an order of magnitude.
    """

    memory_bytes: int
    build_cpu_s: float


@dataclass(frozen=True)
class IndexPlan:
    """Options with everything decided, what they will need, and what was decided or is to mind."""

    options: IndexOptions
    estimate: IndexEstimate
    notes: tuple[str, ...]


def estimate_index(
    rows: int, dimension: int, options: IndexOptions, vectors: int = 2
) -> IndexEstimate:
    """Estimate the indexes of `rows` vectors in each of `vectors` columns."""
    quantization = AUTO_QUANTIZATIONS[0] if options.quantization == "auto" else options.quantization
    chosen = options.resolved(quantization)
    # The lowest layer has 2·m links of 4 bytes a vector; the layers above add hardly any.
    per_row = dimension * ELEMENT_BYTES[quantization] + 8 * chosen.m + NODE_BYTES
    cpu_ms = BUILD_CPU_MS[quantization] * (dimension / 512) * (options.ef_construction / 128)
    return IndexEstimate(int(vectors * rows * per_row), vectors * rows * cpu_ms / 1000)


def plan_index(
    rows: int, dimension: int, options: IndexOptions, server: ServerFacts, vectors: int = 2
) -> IndexPlan:
    """Decide on the quantization: `auto` takes the first of bf16, i8, b1 that the server holds.

    ClickHouse builds b1 for cosineDistance only. Raises IndexTooLarge when none, or not the one
    asked for, fits into 70 % of its memory.
    """
    asked = options.quantization
    candidates = [asked]
    if asked == "auto":
        has_bits = options.metric == "cosineDistance"
        candidates = [q for q in AUTO_QUANTIZATIONS if q != "b1" or has_bits]
    room = None if server.memory_bytes is None else int(MEMORY_SHARE * server.memory_bytes)
    tried = []
    for quantization in candidates:
        chosen = options.resolved(quantization)
        estimate = estimate_index(rows, dimension, chosen, vectors)
        tried.append(f"{quantization} with M={chosen.m} needs {format_gb(estimate.memory_bytes)}")
        if room is None or estimate.memory_bytes <= room:
            return IndexPlan(chosen, estimate, _notes(tried, chosen, estimate, server, asked))
    raise IndexTooLarge(
        f"the vector indexes of {rows:,} rows × {vectors} vectors × {dimension} dimensions do not "
        f"fit: {'; '.join(tried)}; the server has {format_gb(server.memory_bytes or 0)}, of which "
        f"indexes may take {format_gb(room or 0)}. {_way_out(dimension, asked, room, vectors)}"
    )


def format_plan(plan: IndexPlan, rows: int, threads: int) -> str:
    """Return the plan as lines for a log."""
    hours = plan.estimate.build_cpu_s / 3600
    return "\n".join(
        (
            f"Index {plan.options.quantization}, {plan.options.metric}, M={plan.options.m}, "
            f"ef_construction={plan.options.ef_construction}, over {rows:,} rows: "
            f"{format_gb(plan.estimate.memory_bytes)} of RAM and as much disk, about "
            f"{hours:,.1f} CPU hours in all, {hours / threads:,.1f} hours on {threads} threads",
            *plan.notes,
        )
    )


def format_gb(size: int) -> str:
    """Return bytes as GB, with a digit that says something."""
    return f"{size / 1e9:,.1f} GB" if size < 99.95e9 else f"{size / 1e9:,.0f} GB"


def _notes(
    tried: list[str],
    options: IndexOptions,
    estimate: IndexEstimate,
    server: ServerFacts,
    asked: str,
) -> tuple[str, ...]:
    notes = []
    if server.memory_bytes is None:
        notes.append(
            "The memory of the server is unknown: it does not tell. Set LAION_CLICKHOUSE_MEMORY "
            "to have the index checked against it."
        )
    elif len(tried) > 1:
        notes.append(
            f"Chose {options.quantization} by the rule of `auto`: {'; '.join(tried)}; the server "
            f"has {format_gb(server.memory_bytes)}, 70 % of it for indexes."
        )
    if options.quantization == "b1":
        notes.append("b1 keeps one bit per dimension: searches must rescore, see docs/search.md.")
    cache = server.index_cache_bytes
    if cache is not None and estimate.memory_bytes > cache:
        notes.append(
            f"The indexes need {format_gb(estimate.memory_bytes)}, the server's "
            f"vector_similarity_index_cache_size is {format_gb(cache)}: searches will read them "
            "from disk each time. Raise that server setting above the size of the indexes."
        )
    return tuple(notes)


def _way_out(dimension: int, asked: str, room: int | None, vectors: int) -> str:
    smallest = IndexOptions(quantization="b1")
    if asked not in ("auto", "b1"):
        return "Choose index_quantization auto, which takes the best that fits."
    per_row = estimate_index(1_000_000, dimension, smallest, vectors).memory_bytes / 1_000_000
    return (
        f"At most {int((room or 0) / per_row):,} rows fit with b1. Load fewer shards, start with "
        "build_index off (searches then read every row), or take a larger server or a cluster."
    )


def main() -> int:
    """Print the plan for a table that does not exist yet, on servers of several sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.clickhouse.sizing", description=main.__doc__
    )
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=2, help="columns with an index")
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--threads", type=int, default=16, help="of the server")
    parser.add_argument("--memory-gb", type=int, nargs="+", required=True, help="of the server")
    args = parser.parse_args()
    for memory_gb in args.memory_gb:
        server = ServerFacts("", memory_gb * 1_000_000_000, None, args.threads)
        options = IndexOptions(quantization=args.quantization)
        print(f"{memory_gb} GB:")
        try:
            plan = plan_index(args.rows, args.dimension, options, server, args.vectors)
            text = format_plan(plan, args.rows, args.threads)
        except IndexTooLarge as error:
            text = f"refused: {error}"
        print("  " + text.replace("\n", "\n  "))
    return 0


if __name__ == "__main__":
    sys.exit(main())
