"""Standing queries: what the recall of a search table is measured with, sampled once per table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from laion.clickhouse.client import Client, insert_rows, read_rows, typed_errors
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.plan import BuildPlan
from laion.clickhouse.statements import statement
from laion.errors import ClickHouseError

log = logging.getLogger(__name__)

KINDS = ("cross", "near", "words")
"""`cross`: a stored vector of the other column, as text asks for images. `near`: a point between
two rows, with noise, as another picture of the same thing would be. `words`: a phrase of a few
words through `encode_text`, where that is deployed."""
NEAR_SHARE = 0.8
"""Of the first row in a `near` query; the rest is the second's."""
NEAR_NOISE = 0.2
"""Length of the noise in a `near` query; a row has length 1."""
PHRASE = "a picture of {}"
PHRASE_WORDS = 4
"""Words of a stored caption that go into the phrase of a `words` query."""


@dataclass(frozen=True)
class StandingQuery:
    """One query: `excluded` are rows that it was made from and that do not count as found."""

    number: int
    kind: str
    vector: Sequence[float]
    excluded: Sequence[int]


def standing_queries(
    client: Client, table: str, place: str, plan: BuildPlan, count: int
) -> dict[str, list[StandingQuery]]:
    """Return the queries of every vector column, sampling `count` of each kind the first time.

    Those of the kind `words` come to the others once `encode_text` is there.
    """
    asked = {}
    for column in plan.vectors:
        searched = kind_of(plan.options).table_of(place, column)
        names = {"table": table, "root": plan.root, "column": column}
        known = _read_queries(client, names)
        made = [] if known else _make_queries(client, table, searched, plan, column, count)
        if not any(query.kind == "words" for query in known):
            first = len(known or made) + 1
            made += _make_phrases(client, table, searched, plan, column, count, first)
        if made:
            insert_rows(client, "recall_queries", [{**names, **q.__dict__} for q in made])
            known = _read_queries(client, names)
        asked[column] = known
    return asked


def _read_queries(client: Client, names: dict[str, str]) -> list[StandingQuery]:
    return [StandingQuery(**row) for row in read_rows(client, "recall_queries", **names)]


def _make_phrases(
    client: Client, table: str, searched: str, plan: BuildPlan, column: str, count: int, first: int
) -> list[StandingQuery]:
    """Make `words` queries, numbered from `first`; none without a working encode_text.

    Nor where it gives vectors of another length: it belongs to another dataset's model.
    """
    if not client.query(statement("has_function"), parameters={"name": "encode_text"}).result_rows:
        return []
    captions = _sample(client, table, searched, plan, ["caption"], count)
    words = [" ".join(row["caption"].split()[:PHRASE_WORDS]) for row in captions]
    phrases = sorted({PHRASE.format(some) for some in words if some})
    try:
        with typed_errors("encode phrases"):
            vectors = client.query(
                statement("call_function", function="encode_text"), parameters={"values": phrases}
            ).result_rows
    except ClickHouseError as error:
        log.warning("The recall is measured without words: %s", error)
        return []
    dimension = plan.vectors[column]
    usable = [vector for (vector,) in vectors if len(vector) == dimension and any(vector)]
    return [StandingQuery(n, "words", vector, []) for n, vector in enumerate(usable, start=first)]


def _sample(
    client: Client, table: str, searched: str, plan: BuildPlan, columns: list[str], count: int
) -> list[dict[str, Any]]:
    """Return `id` and some columns of rows, the same ones for builds of one root."""
    literals = {"columns": ", ".join(map(quote_identifier, columns))}
    found = client.query(
        statement("sample_rows", table=table, searched=searched, literals=literals),
        parameters={"count": count, "seed": plan.root},
    )
    return list(found.named_results())


def _make_queries(
    client: Client, table: str, searched: str, plan: BuildPlan, column: str, count: int
) -> list[StandingQuery]:
    """Make queries from a sample of rows; a table of fewer rows gives fewer."""
    dimension = plan.vectors[column]
    # Those of the same space, as far as that can be told.
    others = [name for name, size in plan.vectors.items() if name != column and size == dimension]
    sample = _sample(client, table, searched, plan, [column, *others], 2 * count)
    if not sample:
        return []
    ids = [row["id"] for row in sample]
    own = np.array([row[column] for row in sample], dtype=np.float32)
    queries: list[tuple[str, np.ndarray, list[int]]] = []
    for position in range(min(count, len(sample))):
        if others:
            queries.append(("cross", np.array(sample[position][others[0]], np.float32), []))
        partner = (position + count) % len(sample)
        noise = np.random.default_rng(position).standard_normal(dimension)
        near = NEAR_SHARE * own[position] + (1 - NEAR_SHARE) * own[partner]
        near = near / np.linalg.norm(near) + NEAR_NOISE * noise / np.linalg.norm(noise)
        queries.append(("near", near / np.linalg.norm(near), sorted({ids[position], ids[partner]})))
    return [
        StandingQuery(number, kind, vector.astype(np.float32).tolist(), excluded)
        for number, (kind, vector, excluded) in enumerate(queries, start=1)
    ]
