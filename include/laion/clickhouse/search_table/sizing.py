"""The plan of a search table that does not exist yet, on servers of several sizes."""

from __future__ import annotations

import argparse
import sys

from laion.clickhouse.search_table.choose import choose_kind
from laion.clickhouse.search_table.kinds import AUTO, kind_of, offered_kinds
from laion.clickhouse.search_table.kinds.kind import SizedPlan
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.server import CODEC_SETTINGS, ServerFacts
from laion.errors import IndexTooLarge
from laion.units import format_gb
from laion.vectors import Dimensions


def plan_index(
    rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts, kept: str = ""
) -> SizedPlan:
    """Decide on what the options leave open; `kept` is the kind of the search table in use.

    Raises BadRequest, ServerTooOld, IndexTooLarge.
    """
    if options.kind == AUTO:
        return choose_kind(rows, dimensions, options, server, kept)
    return kind_of(options).plan(rows, dimensions, options, server)


def format_plan(plan: SizedPlan, rows: int, threads: int) -> str:
    """Return the plan as lines for a log."""
    if not plan.estimate.disk_bytes:
        return "\n".join((f"No index over {rows:,} rows.", plan.choice, *plan.notes)).strip()
    needs, hours = plan.estimate, plan.estimate.build_cpu_s / 3600
    is_same = needs.disk_bytes == needs.memory_bytes
    disk = "as much disk" if is_same else f"{format_gb(needs.disk_bytes)} of disk"
    return "\n".join(
        (
            f"Index {kind_of(plan.options).describe(plan.options)}, over {rows:,} rows: "
            f"{format_gb(needs.memory_bytes)} of RAM and {disk}, about "
            f"{hours:,.1f} CPU hours in all, {hours / threads:,.1f} hours on {threads} threads",
            *([plan.choice] if plan.choice else []),
            *plan.notes,
        )
    )


def main() -> int:
    """Print the plan for a table that does not exist yet, on servers of several sizes."""
    parser = argparse.ArgumentParser(
        prog="python -m laion.clickhouse.search_table.sizing", description=main.__doc__
    )
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--vectors", type=int, default=2, help="columns with an index")
    parser.add_argument("--kind", default=AUTO, choices=offered_kinds())
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--threads", type=int, default=16, help="of the server")
    parser.add_argument("--memory-gb", type=int, nargs="+", required=True, help="of the server")
    args = parser.parse_args()
    dimensions = {f"vector {n}": args.dimension for n in range(args.vectors)}
    for memory_gb in args.memory_gb:
        server = ServerFacts("", memory_gb * 1_000_000_000, None, args.threads, CODEC_SETTINGS[0])
        options = IndexOptions(kind=args.kind, quantization=args.quantization)
        print(f"{memory_gb} GB:")
        try:
            plan = plan_index(args.rows, dimensions, options, server)
            text = format_plan(plan, args.rows, args.threads)
        except IndexTooLarge as error:
            text = f"refused: {error}"
        print("  " + text.replace("\n", "\n  "))
    return 0


if __name__ == "__main__":
    sys.exit(main())
