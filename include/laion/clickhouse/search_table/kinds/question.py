"""What a search asks, and the layers of its statement that all kinds share.

The nearest rows, ranked; without copies, if that is asked; then what is shown of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from laion.clickhouse.identifiers import quote_column
from laion.clickhouse.statements import statement

CANDIDATES = 4
"""So many rows per row wanted are looked at where copies are left out."""
COPY_DISTANCE = 0.001
"""Cosine distance below which two vectors are of one picture or text. Float16, in which models'
vectors are published, moves a vector of length 1 by some 1e-7, BFloat16 by some 1e-5."""


@dataclass(frozen=True)
class Question:
    """What a search asks: `columns`, beside id and distance, of the rows nearest to `target`.

    All are SQL. `conditions` are as `Kind.condition` makes them; `within` are conditions by
    `Kind.in_bucket`, of the part of the rows that is looked at. `distinct` says whether copies are
    left out: of rows with one URL, or with vectors that are the same but for noise, the nearest
    only; empty: they are not.
    """

    vector: str
    target: str
    columns: Sequence[str] = ()
    conditions: Sequence[str] = ()
    within: Sequence[str] = ()
    limit: str = "{limit:UInt32}"
    distinct: str = ""

    @property
    def candidates(self) -> str:
        """How many of the nearest rows are taken, before copies are left out."""
        if not self.distinct:
            return self.limit
        return f"{self.limit} * if({self.distinct}, {CANDIDATES}, 1)"

    @property
    def nearest_columns(self) -> str:
        """What has to be known of the nearest rows, beside their distance."""
        names = ["id"]
        if self.columns:
            names.append("shard")
        if self.distinct:
            names.append(quote_column(self.vector))
        return ", ".join(names)

    @property
    def where(self) -> str:
        """The clause of the conditions; a comment where there are none."""
        conditions = [*self.conditions, *self.within]
        return f"WHERE {' AND '.join(conditions)}" if conditions else "-- every row"

    def statement(self, nearest: str, *, shown_from: str, settings: str) -> str:
        """Return the statement around the SELECT that finds the nearest rows.

        Settings are those of the SELECT that is planned by itself: ClickHouse takes none that
        matters here from a SELECT further inside.
        """
        found = self._without_copies(self._ranked(nearest))
        if not self.columns:
            return f"{found}\nSETTINGS {settings}"
        shown = ["id", "laion_found.2[indexOf(laion_found.1, id)] AS distance", *self.columns]
        literals = {
            "found": _indented(found, 3),
            "settings": settings,
            "columns": ", ".join(shown),
            "once": self._once_per_url(),
            "limit": self.limit,
        }
        return statement("search", table=shown_from, literals=literals)

    def _ranked(self, nearest: str) -> str:
        literals = {
            "columns": ", ".join([*self.nearest_columns.split(", "), "distance"]),
            "nearest": _indented(nearest, 1),
            "limit": self.candidates,
        }
        return statement("ranked", literals=literals)

    def _without_copies(self, ranked: str) -> str:
        if not self.distinct:
            return ranked
        literals = {
            "columns": "id, shard, distance" if self.columns else "id, distance",
            "vector": quote_column(self.vector),
            "distinct": self.distinct,
            "closest": str(COPY_DISTANCE),
            "ranked": _indented(ranked, 2),
        }
        return statement("distinct", literals=literals)

    def _once_per_url(self) -> str:
        """Return a clause that keeps one row of each URL; rows without a URL are all different."""
        if not self.distinct:
            return ""
        return f"LIMIT 1 BY if({self.distinct} AND url != '', url, toString(id))"


def _indented(text: str, levels: int) -> str:
    """Indent all lines but the first."""
    return text.replace("\n", "\n" + "    " * levels)
