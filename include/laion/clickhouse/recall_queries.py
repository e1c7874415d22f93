"""Standing queries: what the recall of a search table is measured with, sampled once per table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laion.clickhouse.builds import BuildPlan
from laion.clickhouse.client import Client
from laion.clickhouse.statements import statement

KINDS = ("cross", "near")
"""`cross`: a stored vector of the other column, as text asks for images. `near`: a point between
two rows, with noise, as another picture of the same thing would be."""
NEAR_SHARE = 0.8
"""Of the first row in a `near` query; the rest is the second's."""
NEAR_NOISE = 0.2
"""Length of the noise in a `near` query; a row has length 1."""


@dataclass(frozen=True)
class StandingQuery:
    """One query: `excluded` are rows that it was made from and that do not count as found."""

    number: int
    kind: str
    vector: Sequence[float]
    excluded: Sequence[int]


def standing_queries(
    client: Client, table: str, searched: str, plan: BuildPlan, count: int
) -> dict[str, list[StandingQuery]]:
    """Return the queries of every vector column, sampling `count` of each kind the first time."""
    asked = {}
    for column in plan.vectors:
        names = {"table": table, "root": plan.root, "column": column}
        rows = client.query(statement("recall_queries"), parameters=names).result_rows
        if not rows:
            made = _make_queries(client, searched, plan, column, count)
            client.insert(
                "recall_queries",
                [[*names.values(), q.number, q.kind, q.vector, q.excluded] for q in made],
                column_names=[*names, "number", "kind", "vector", "excluded"],
                settings={"async_insert": 0},
            )
            rows = client.query(statement("recall_queries"), parameters=names).result_rows
        asked[column] = [StandingQuery(*row) for row in rows]
    return asked


def _make_queries(
    client: Client, searched: str, plan: BuildPlan, column: str, count: int
) -> list[StandingQuery]:
    """Make queries from a sample of rows; a table of fewer rows gives fewer."""
    others = [vector for vector in plan.vectors if vector != column]
    sample = client.query(
        statement(
            "sample_rows", shadow=searched, literals={"columns": ", ".join([column, *others])}
        ),
        parameters={"count": 2 * count, "seed": plan.root},
    ).result_rows
    if not sample:
        return []
    ids = [row[0] for row in sample]
    own = np.array([row[1] for row in sample], dtype=np.float32)
    queries: list[tuple[str, np.ndarray, list[int]]] = []
    for position in range(min(count, len(sample))):
        if others:
            queries.append(("cross", np.array(sample[position][2], np.float32), []))
        partner = (position + count) % len(sample)
        noise = np.random.default_rng(position).standard_normal(plan.dimension)
        near = NEAR_SHARE * own[position] + (1 - NEAR_SHARE) * own[partner]
        near = near / np.linalg.norm(near) + NEAR_NOISE * noise / np.linalg.norm(noise)
        queries.append(("near", near / np.linalg.norm(near), sorted({ids[position], ids[partner]})))
    return [
        StandingQuery(number, kind, vector.astype(np.float32).tolist(), excluded)
        for number, (kind, vector, excluded) in enumerate(queries, start=1)
    ]
