"""What `bench.kinds` measured: tables, ratios, a chart."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

CODES, LISTS = "quantized, turboquant", "ivf, turboquant"
"""The kinds of which ratios are claimed."""


@dataclass(frozen=True)
class Cost:
    """Of one search, on average: recall@10, CPU ms of the server, MB read, rows; p50 in ms.

    `recall_low` is the lower 95 % bound of the recall.
    """

    recall: float
    recall_low: float
    cpu_ms: float
    read_mb: float
    rows: float
    p50_ms: float


Costs = dict[str, Cost]
"""By kind of query."""


@dataclass
class Measured:
    """What a kind took to build, and what its searches find and take.

    `chosen` is by the view, with the settings that the gate chose; `first_step` the same without
    the columns that are shown; `curve` all settings that the gate tries; `filtered` is by the share
    of rows that pass; `exact` compares all vectors of the search table, without its index.
    """

    build_cpu_s: float
    disk_mb: float
    profile: str
    chosen: Costs
    first_step: Costs
    curve: dict[str, Costs]
    filtered: dict[str, Costs]
    exact: Costs


def ratios(measured: dict[str, Measured]) -> dict[str, float]:
    """Return what is claimed of each kind, each within this run."""
    return {
        f"{name}: {what}": ratio
        for name in (CODES, LISTS)
        for what, ratio in _ratios(measured[name], measured.get("hnsw, bf16")).items()
    }


def _ratios(codes: Measured, hnsw: Measured | None) -> dict[str, float]:
    chosen, exact = codes.first_step, codes.exact
    found = {
        **{f"recall@10, {kind}": cost.recall for kind, cost in chosen.items()},
        **{f"recall@10, {kind}, at least": cost.recall_low for kind, cost in chosen.items()},
        **{
            f"CPU of exact bf16 / of a search, {kind}": exact[kind].cpu_ms / chosen[kind].cpu_ms
            for kind in chosen
        },
        **{
            f"bytes of exact bf16 / of a search, {kind}": exact[kind].read_mb / chosen[kind].read_mb
            for kind in chosen
        },
        "second step: CPU with it / without": max(
            codes.chosen[kind].cpu_ms / chosen[kind].cpu_ms for kind in chosen
        ),
        "second step: MB more": max(
            codes.chosen[kind].read_mb - chosen[kind].read_mb for kind in chosen
        ),
    }
    for share, costs in codes.filtered.items():
        found[f"{share} pass: worst recall@10"] = min(cost.recall for cost in costs.values())
        found[f"{share} pass: fewest rows"] = min(cost.rows for cost in costs.values())
    if hnsw:
        found["build CPU of hnsw bf16 / of it"] = hnsw.build_cpu_s / codes.build_cpu_s
    return found


def show(title: str, measured: dict[str, Measured], path: Path) -> None:
    """Print the tables, and write everything into a file of JSON."""
    console = Console()
    builds = Table("kind", "build CPU s", "MB", "searched by", title=title)
    searches = Table("kind", "queries", "recall@10", "CPU ms", "MB read", "p50 ms", "ids alone")
    for name, one in measured.items():
        builds.add_row(name, f"{one.build_cpu_s:.1f}", f"{one.disk_mb:.0f}", one.profile)
        for kind, cost in one.chosen.items():
            alone = one.first_step[kind]
            searches.add_row(
                name,
                kind,
                f"{alone.recall:.3f} (≥ {alone.recall_low:.3f})",
                f"{cost.cpu_ms:.1f}",
                f"{cost.read_mb:.1f}",
                f"{cost.p50_ms:.1f}",
                f"{alone.cpu_ms:.1f} CPU ms, {alone.read_mb:.1f} MB, {alone.p50_ms:.1f} ms",
            )
    console.print(builds, searches)
    claimed = ratios(measured)
    for what, ratio in claimed.items():
        console.print(f"{what}: {ratio:.3f}")
    facts = {
        "rows": title,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "measured": {name: asdict(one) for name, one in measured.items()},
        "ratios": {what: round(ratio, 3) for what, ratio in claimed.items()},
    }
    path.write_text(json.dumps(facts, indent=2) + "\n")


def draw(title: str, measured: dict[str, Measured], path: Path) -> None:
    """Draw recall against CPU, of the settings that no cheaper ones of their kind surpass."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    kinds = list(measured[CODES].chosen)
    figure, all_axes = pyplot.subplots(1, len(kinds), figsize=(5 * len(kinds), 4), sharey=True)
    for axes, kind in zip(all_axes, kinds, strict=True):
        for name, one in measured.items():
            costs = [c[kind] for c in (one.curve or {"": one.first_step}).values()]
            best: list[Cost] = []
            for cost in sorted(costs, key=lambda cost: cost.cpu_ms):
                if not best or cost.recall > best[-1].recall:
                    best.append(cost)
            axes.plot([c.cpu_ms for c in best], [c.recall for c in best], marker=".", label=name)
        exact = measured[CODES].exact[kind]
        axes.plot(exact.cpu_ms, exact.recall, marker="s", color="grey", label="exact, bf16")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([10, 20, 30, 50, 100, 200]))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("CPU of a search, ms")
        axes.set_title(f"{kind} queries")
        axes.grid(visible=True, alpha=0.3)
    all_axes[0].set_ylabel("recall@10")
    all_axes[0].legend(fontsize="small")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
