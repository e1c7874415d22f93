"""What HNSW graphs need, against what the server has: RAM, disk, CPU."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.kinds.kind import Estimate, SizedPlan
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexTooLarge
from laion.units import format_gb
from laion.vectors import Dimensions

OFFER = OFFERS["hnsw"]
ELEMENT_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "i8": 1.0, "b1": 1 / 8}
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
SEARCH_CPU_S = 0.02
"""Hardly depends on the rows; measured on 1,000,000 (docs/performance.md)."""
MEMORY_SHARE = 0.7
"""Of a server's memory, what indexes may take; queries, merges and caches need the rest."""
GONE_INDEXES = {
    "annoy": "ClickHouse removed Annoy indexes in 2024 and usearch indexes in 2025",
    "usearch": "ClickHouse removed usearch indexes in 2025, and Annoy indexes before",
}


EF_CONSTRUCTION = 128


def check_options(options: IndexOptions) -> None:
    """Raise BadRequest for what ClickHouse cannot build."""
    for given in (options.metric, options.quantization):
        if given.lower() in GONE_INDEXES:
            raise BadRequest(
                GONE_INDEXES[given.lower()],
                advice="the index of today is vector_similarity (HNSW). docs/search.md maps the "
                "old options to its own.",
            )
    if options.metric not in OFFER.metrics:
        raise BadRequest(f"index_metric: {options.metric!r} is none of {', '.join(OFFER.metrics)}")
    if options.quantization not in (*OFFER.quantizations, "auto"):
        raise BadRequest(
            f"index_quantization: {options.quantization!r} is none of auto, "
            f"{', '.join(OFFER.quantizations)}"
        )
    if options.quantization == "b1" and options.metric != "cosineDistance":
        raise BadRequest(
            f"index_quantization: ClickHouse builds b1 for cosineDistance only, not for "
            f"{options.metric}",
            advice="choose another quantization, such as auto, or cosineDistance",
        )


def resolve(options: IndexOptions, quantization: str) -> IndexOptions:
    """Return options with a quantization, and with `m` and `ef_construction` decided.

    `m` is the connections of a vector per layer.
    """
    m = options.parameters.get("m") or CONNECTIONS.get(quantization, DEFAULT_CONNECTIONS)
    ef_construction = options.parameters.get("ef_construction") or EF_CONSTRUCTION
    parameters = {"m": m, "ef_construction": ef_construction}
    return replace(options, quantization=quantization, parameters=parameters)


def estimate_graphs(rows: int, dimensions: Collection[int], options: IndexOptions) -> Estimate:
    """Estimate the graphs of `rows` vectors in each column, of these dimensions.

    RAM agrees with ClickHouse's own figure within a few per cent; CPU is an order of magnitude.
    """
    quantization = AUTO_QUANTIZATIONS[0] if options.quantization == "auto" else options.quantization
    chosen = resolve(options, quantization).parameters
    # The lowest layer has 2·m links of 4 bytes a vector; the layers above add hardly any.
    fixed = 8 * chosen["m"] + NODE_BYTES
    per_row = sum(dimension * ELEMENT_BYTES[quantization] + fixed for dimension in dimensions)
    cpu_ms = BUILD_CPU_MS[quantization] * (chosen["ef_construction"] / EF_CONSTRUCTION)
    cpu_s = rows * cpu_ms * sum(dimensions) / 512 / 1000
    memory = int(rows * per_row)
    return Estimate(
        memory_bytes=memory, disk_bytes=memory, build_cpu_s=cpu_s, search_cpu_s=SEARCH_CPU_S
    )


def plan_graphs(
    rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
) -> SizedPlan:
    """Decide on the quantization: `auto` takes the first of bf16, i8, b1 that the server holds.

    ClickHouse builds b1 for cosineDistance only. Raises BadRequest, and IndexTooLarge when none, or
    not the one asked for, fits into 70 % of its memory.
    """
    check_options(options)
    asked, sizes = options.quantization, tuple(dimensions.values())
    candidates = [asked]
    if asked == "auto":
        has_bits = options.metric == "cosineDistance"
        candidates = [q for q in AUTO_QUANTIZATIONS if q != "b1" or has_bits]
    room = None if server.memory_bytes is None else int(MEMORY_SHARE * server.memory_bytes)
    tried = []
    for quantization in candidates:
        chosen = resolve(options, quantization)
        estimate = estimate_graphs(rows, sizes, chosen)
        needs = format_gb(estimate.memory_bytes)
        tried.append(f"{quantization} with M={chosen.parameters['m']} needs {needs}")
        if room is None or estimate.memory_bytes <= room:
            return SizedPlan(chosen, estimate, _notes(tried, chosen, estimate, server, asked))
    raise IndexTooLarge(
        f"the vector indexes of {rows:,} rows × {_shape(sizes)} do not fit: {'; '.join(tried)}; "
        f"the server has {format_gb(server.memory_bytes or 0)}, of which indexes may take "
        f"{format_gb(room or 0)}",
        advice=_way_out(sizes, asked, room),
    )


def _shape(sizes: Collection[int]) -> str:
    if len(set(sizes)) == 1:
        return f"{len(sizes)} vectors × {next(iter(sizes))} dimensions"
    return f"vectors of {' and '.join(map(str, sizes))} dimensions"


def _notes(
    tried: list[str],
    options: IndexOptions,
    estimate: Estimate,
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


def _way_out(sizes: Collection[int], asked: str, room: int | None) -> str:
    if asked not in ("auto", "b1"):
        return "Choose index_quantization auto, which takes the best that fits."
    smallest = IndexOptions(quantization="b1")
    per_row = estimate_graphs(1_000_000, sizes, smallest).memory_bytes / 1_000_000
    return (
        f"At most {int((room or 0) / per_row):,} rows fit with b1. Load fewer shards, start with "
        "build_index off (searches then read every row), or take a larger server or a cluster."
    )
