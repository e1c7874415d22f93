"""The kinds of search table. A further one needs a module, its SQL and an entry in `OFFERS`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from laion.clickhouse.search_table.plan import FIRST_KIND, IndexOptions
from laion.errors import BadRequest

if TYPE_CHECKING:
    from laion.clickhouse.search_table.kinds.kind import Kind


@dataclass(frozen=True)
class Offer:
    """What can be asked of a kind; its class, `module:Name`, is imported when it is used.

    `summary` says to people what it is, `auto_quantization` what `auto` stands for. `auto` chooses
    among kinds that are `is_automatic`.
    """

    implementation: str
    summary: str
    metrics: tuple[str, ...]
    quantizations: tuple[str, ...]
    auto_quantization: str = ""
    is_automatic: bool = True


AUTO = "auto"
"""Stands for the kind that `laion.clickhouse.search_table.choose` chooses."""
METRICS = ("cosineDistance", "L2Distance")
CODES = ("turboquant", "rabitq", "int8")
MOST_LISTS, MOST_LISTS_OF_AUTO = 262_144, 65_536
"""Inverted lists of a vector: what may be asked for, and what tables get by themselves."""
AUTO_CODE = "'turboquant', or 'int8' where 8 does not divide a dimension"
CODEC = (
    "needs no memory, and an experimental codec of ClickHouse 26.7 or later, on which searches "
    "depend and data does not"
)
OFFERS = {
    "exact": Offer(
        "laion.clickhouse.search_table.kinds.exact:Exact",
        summary="no index, every vector is compared",
        metrics=METRICS,
        quantizations=(),
    ),
    FIRST_KIND: Offer(
        "laion.clickhouse.search_table.kinds.hnsw:Hnsw",
        summary="graphs in the server's memory, the quickest to search, and long to build",
        metrics=METRICS,
        quantizations=("f32", "f16", "bf16", "i8", "b1"),
        auto_quantization="the finest of 'bf16', 'i8' and 'b1' that the server's memory holds",
    ),
    "quantized": Offer(
        "laion.clickhouse.search_table.kinds.quantized:Quantized",
        summary=f"a short code of each vector, all of them compared; {CODEC}",
        metrics=("cosineDistance",),
        quantizations=CODES,
        auto_quantization=AUTO_CODE,
    ),
    "ivf": Offer(
        "laion.clickhouse.search_table.kinds.ivf:Ivf",
        summary="the same codes, in inverted lists, of which a search reads the nearest",
        metrics=("cosineDistance",),
        quantizations=CODES,
        auto_quantization=AUTO_CODE,
        is_automatic=False,
    ),
}


def offered_metrics() -> list[str]:
    """Return the metrics of all kinds."""
    return list(dict.fromkeys(name for offer in OFFERS.values() for name in offer.metrics))


def offered_quantizations() -> list[str]:
    """Return how the kinds can keep vectors, `auto` first."""
    names = (name for offer in OFFERS.values() for name in offer.quantizations)
    return list(dict.fromkeys(["auto", *names]))


def offered_kinds() -> list[str]:
    """Return what can be asked for as a kind, `auto` first."""
    return [AUTO, *OFFERS]


def summarize_kinds() -> str:
    """Return what each kind is, in a sentence each."""
    return " ".join(f"'{name}': {offer.summary}." for name, offer in OFFERS.items())


def summarize_auto_quantization() -> str:
    """Return what `auto` stands for in each kind that has a choice."""
    offers = ((name, offer.auto_quantization) for name, offer in OFFERS.items())
    return "; ".join(f"for the kind '{name}' {meant}" for name, meant in offers if meant)


def kind_of(options: IndexOptions) -> Kind:
    """Return the kind of search table that options are of. Raises BadRequest."""
    if options.kind not in OFFERS:
        raise BadRequest(f"index_kind: {options.kind!r} is none of {', '.join(offered_kinds())}")
    return load_kind(options.kind)


@cache
def load_kind(name: str) -> Kind:
    """Return the kind of a name in OFFERS."""
    module, _, class_name = OFFERS[name].implementation.partition(":")
    kind: Kind = getattr(import_module(module), class_name)()
    return kind
