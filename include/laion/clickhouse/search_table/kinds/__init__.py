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
    """What can be asked of a kind; its class, `module:Name`, is imported when it is used."""

    implementation: str
    metrics: tuple[str, ...]
    quantizations: tuple[str, ...]


AUTO = "auto"
"""Stands for the kind that `laion.clickhouse.search_table.choose` chooses."""
METRICS = ("cosineDistance", "L2Distance")
OFFERS = {
    "exact": Offer(
        "laion.clickhouse.search_table.kinds.exact:Exact", metrics=METRICS, quantizations=()
    ),
    FIRST_KIND: Offer(
        "laion.clickhouse.search_table.kinds.hnsw:Hnsw",
        metrics=METRICS,
        quantizations=("f32", "f16", "bf16", "i8", "b1"),
    ),
    "quantized": Offer(
        "laion.clickhouse.search_table.kinds.quantized:Quantized",
        metrics=("cosineDistance",),
        quantizations=("turboquant", "rabitq", "int8"),
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
