"""Kind `ivf`: rows in inverted lists, of which a search reads those nearest to what is asked.

Lists are trained once, on a sample. Every row is put into the nearest one, and the narrow tables of
kind `quantized` are ordered by list. So a search compares the codes of a few lists' rows, and needs
nothing in memory but what says where a list begins.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier, quote_string, search_table, vector_suffix
from laion.clickhouse.ledger.shard_facts import shards_to_index
from laion.clickhouse.schema import table_exists
from laion.clickhouse.search_table.kinds.ivf.assignment import (
    assign_shard,
    drift,
    unassigned,
)
from laion.clickhouse.search_table.kinds.ivf.lists import lists_for
from laion.clickhouse.search_table.kinds.ivf.sizing import (
    LEAST_LIST_ROWS,
    MOST_RANGES,
    estimate,
    lists_read,
)
from laion.clickhouse.search_table.kinds.ivf.training import read_lists, train_lists
from laion.clickhouse.search_table.kinds.kind import (
    OnProgress,
    SearchProfile,
    SizedPlan,
)
from laion.clickhouse.search_table.kinds.narrow import (
    MULTIPLIER,
    NOTES,
    SHORTLIST_SETTINGS,
    NarrowKind,
    attach,
    drop_bucket,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.clickhouse.statements import statement
from laion.columns import FILTERED
from laion.errors import IndexBuildFailed
from laion.shards import HeldShard
from laion.vectors import Dimensions

LEAST_NEAR = 0.5
"""Of queries of an easy kind, the share that must be known by its score for that to be of use."""
SPREAD_WEIGHT = 0.3
"""Of a list's spread beside the dot product with its mean: half as many rows are read for text-like
queries than by the cosine."""
LISTS_MULTIPLIER = 4
LEAST_LISTS = 80
"""The lists wanted, or so many, times the multiplier are ranked by their vectors and not by codes
alone: with half as many, more lists must be read for the same recall."""


@dataclass(frozen=True)
class ListsProfile(SearchProfile):
    """How many lists are read, and how many rows are compared by vector: `rows` × MULTIPLIER.

    A query whose best list scores `near_from` or more, one that lies among the rows, takes
    `near_lists` and `near_rows`; 0: it takes as many as others.
    """

    lists: int = 256
    rows: int = 100
    near_lists: int = 0
    near_rows: int = 0
    near_from: float = 0.0

    def __str__(self) -> str:
        text = _described(self.lists, self.rows)
        if not self.near_lists:
            return text
        near = _described(self.near_lists, self.near_rows)
        return f"{text}; where the query lies among the rows, {near}"

    def chosen(self, far: int, near: int) -> str:
        """Return which of two numbers a query takes, as SQL."""
        return (
            f"if(laion_lists.3 >= {self.near_from}, {near}, {far})" if self.near_lists else str(far)
        )

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    def settings(self) -> dict[str, Any]:
        return dict(SHORTLIST_SETTINGS)

    def widened(self, limit: int) -> ListsProfile:
        """The statement itself reads all lists where the nearest have too few rows."""
        return self


class Ivf(NarrowKind):
    """Inverted lists of rows, in their order, with a code of each vector."""

    name = "ivf"
    filtered = FILTERED
    view_note = (
        "The lists of rows nearest to q are read: more of them where filters leave few rows, all "
        "of them where those have fewer than k."
    )
    ladder = (
        ListsProfile(4, 10),
        ListsProfile(8, 20),
        ListsProfile(16, 20),
        ListsProfile(32, 20),
        ListsProfile(64, 30),
        ListsProfile(128, 30),
        ListsProfile(256, 50),
        ListsProfile(384, 50),
        ListsProfile(512, 50),
        ListsProfile(768, 100),
        ListsProfile(1024, 200),
        ListsProfile(2048, 200),
        ListsProfile(4096, 500),
        ListsProfile(16_384, 1000),
        ListsProfile(262_144, 1000),
    )

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        method = self.choose_method(dimensions, options, server)
        lists = options.parameters.get("lists") or lists_for(rows)
        decided = replace(options, quantization=method, parameters={"lists": lists})
        return SizedPlan(decided, estimate(rows, dimensions, method, lists), NOTES)

    def kept_parameters(self, rows: int, in_use: IndexOptions) -> Mapping[str, int]:
        lists = in_use.parameters["lists"]
        return in_use.parameters if lists_for(rows, lists) == lists else {}

    def most_buckets(self, rows: int, options: IndexOptions) -> int:
        """So many that finding where lists begin does not cost more than reading them."""
        lists = int(options.parameters["lists"])
        by_rows = rows // (lists * min(LEAST_LIST_ROWS, options.min_bucket_rows))
        return max(1, min(by_rows, MOST_RANGES // lists_read(rows, lists)))

    def describe(self, options: IndexOptions) -> str:
        return f"{options.parameters['lists']:,} inverted lists, {super().describe(options)}"

    def tables(self, table: str, plan: BuildPlan, *, in_use: bool) -> set[str]:
        names = set()
        for vector, narrow in self.narrow_tables(table, plan).items():
            trained, assigned = _kept(table, plan, vector)
            names |= {narrow, _lists(narrow), _totals(narrow), trained, assigned}
        return names

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        """Create the tables and train the lists, once for all builds of a root."""
        sources = shards_to_index(client, table)
        for vector, narrow in self.narrow_tables(table, plan).items():
            trained, assigned = _kept(table, plan, vector)
            for name, text in (
                (_totals(narrow), "ivf/create_totals"),
                (trained, "ivf/create_trained"),
                (assigned, "ivf/create_assigned"),
            ):
                self.make(client, table, plan, name, text)
            size = plan.vectors[vector] + len(_extended(plan.vectors[vector], 0.0))
            self.make(client, table, plan, _lists(narrow), "ivf/create_lists", dimension=str(size))
            literals = {
                "vector": quote_identifier(vector),
                "method": quote_string(plan.options.quantization),
                "dimension": str(plan.vectors[vector]),
            }
            self.make(client, table, plan, narrow, "ivf/create_narrow", **literals)
            train_lists(client, table, vector, plan, sources, trained, assigned)

    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        """And whether its lists are there still: rows would be in others by new ones."""
        kept = (_kept(table, old, vector)[0] for vector in old.vectors)
        return super().has_same_columns(client, table, old) and all(
            table_exists(client, trained) and read_lists(client, trained) is not None
            for trained in kept
        )

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Assign the shards that were published since, copy rows in the order of lists, merge."""
        first, last = plan.shards_of(bucket)
        sources = [s for s in shards_to_index(client, table) if first <= s.shard <= last]
        shared = ["id", "shard", *(quote_identifier(column.name) for column in self.filtered)]
        for vector, narrow in self.narrow_tables(table, plan).items():
            trained, assigned = _kept(table, plan, vector)
            if wanting := unassigned(client, assigned, sources):
                lists = read_lists(client, trained)
                if lists is None:
                    raise IndexBuildFailed(
                        f"{trained} has no lists, or not all; clear `plan_index` with what follows "
                        "it to train them again"
                    )
                for source in wanting:
                    assign_shard(client, table, vector, plan, source, lists, assigned)
            own = quote_identifier(vector)
            literals = {
                "columns": ", ".join([*shared, own]),
                "values": ", ".join(
                    [
                        *(f"base.{name}" for name in shared),
                        f"L2Normalize(base.{own}::Array(Float32))",
                    ]
                ),
            }
            fill = statement(
                "ivf/fill", narrow=narrow, table=table, assigned=assigned, literals=literals
            )
            drop_bucket(client, narrow, bucket)
            for source in sources:
                client.command(fill, parameters={"shard": source.shard})
            self.merge(client, narrow, bucket)
            drop_bucket(client, _totals(narrow), bucket)
            client.command(
                statement("ivf/fill_totals", totals=_totals(narrow), narrow=narrow, vector=vector),
                parameters={"bucket": bucket},
            )

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        """Nothing to do: rows are written with their lists and codes."""

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        super().take_over(client, table, plan, old, bucket)
        before = self.narrow_tables(table, old)
        for vector, narrow in self.narrow_tables(table, plan).items():
            attach(client, _totals(narrow), _totals(before[vector]), bucket)

    def complete(self, client: Client, table: str, plan: BuildPlan) -> None:
        """Make of every list in every bucket the mean and spread of the list."""
        for vector, narrow in self.narrow_tables(table, plan).items():
            lists = _lists(narrow)
            zeros = str(_extended(plan.vectors[vector], 0.0)[1:])
            fill = statement(
                "ivf/fill_lists", lists=lists, totals=_totals(narrow), literals={"zeros": zeros}
            )
            with typed_errors(f"fill {lists}"):
                client.command(f"TRUNCATE TABLE {quote_identifier(lists)}")
                client.command(fill)

    def read_profile(self, knobs: Mapping[str, Any]) -> ListsProfile:
        return ListsProfile(**knobs)

    def distinguish(
        self,
        client: Client,
        narrow: str,
        enough: SearchProfile,
        own: Mapping[str, SearchProfile],
        asked: Mapping[str, Sequence[Sequence[float]]],
    ) -> SearchProfile | None:
        """By the score of the best list: a text is far from all pictures, even those it describes.

        Queries of a kind count as near if half as many lists are enough for them. Of the others
        none may take so few.
        """
        assert isinstance(enough, ListsProfile)
        cheap = {
            kind: profile
            for kind, profile in own.items()
            if isinstance(profile, ListsProfile) and 2 * profile.lists <= enough.lists
        }
        if not cheap:
            return None
        best = {kind: _best_scores(client, _lists(narrow), some) for kind, some in asked.items()}
        others = [best[kind].max() for kind in asked if kind not in cheap]
        limit = math.ceil(1000 * max(others, default=-1.0)) / 1000
        if min((best[kind] >= limit).mean() for kind in cheap) < LEAST_NEAR:
            return None
        near = max(cheap.values(), key=lambda profile: profile.lists)
        return replace(enough, near_lists=near.lists, near_rows=near.rows, near_from=limit)

    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        narrow = self.table_of(place, question.vector)
        literals = {
            "columns": question.nearest_columns,
            "target": question.target,
            "candidates": question.candidates,
        }
        names = {"narrow": narrow, "vector": question.vector}
        if not isinstance(profile, ListsProfile):
            exact = {**literals, "where": question.where, "limit": question.candidates}
            return statement("quantized/nearest", literals=exact, **names)
        rows = profile.chosen(profile.rows, profile.near_rows)
        conditions = "".join(f"AND {one} " for one in (*question.conditions, *question.within))
        lists = _lists(narrow)
        literals |= {
            "spread_weights": str(_extended(plan.vectors[question.vector], SPREAD_WEIGHT)),
            "multiplier": f"{float(LISTS_MULTIPLIER)}",
            "wanted": profile.chosen(profile.lists, profile.near_lists),
            "and": conditions,
            "limit": f"greatest({question.candidates}, {rows})",
        }
        most = max(LEAST_LISTS, profile.lists)
        if question.conditions:
            literals["most"], read = str(most), "ivf/read_filtered"
        else:
            # No list is empty.
            literals["most"] = f"greatest({most}, {question.candidates})"
            read = "ivf/read_unfiltered"
        literals["read"] = statement(read, narrow=narrow, lists=lists, literals=literals)
        return statement("ivf/nearest", lists=lists, literals=literals, **names)

    def drift(
        self, client: Client, table: str, plan: BuildPlan, known: Collection[HeldShard]
    ) -> Iterator[str]:
        for vector in plan.vectors:
            for found in drift(client, _kept(table, plan, vector)[1], known):
                yield f"{vector}: {found}"

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        by_list = any("list in" in line for line in explained)
        return by_list and super().is_used(explained, vector)


def _described(lists: int, rows: int) -> str:
    return f"{lists:,} lists read, {MULTIPLIER * rows:,} rows compared by vector"


def _best_scores(
    client: Client, lists: str, queries: Sequence[Sequence[float]]
) -> npt.NDArray[np.float64]:
    """Return the score of each query's best list, as a search computes it: a cosine."""
    with typed_errors(f"read {lists}"):
        found = client.query_arrow(
            f"SELECT near::Array(Float32) AS near FROM {quote_identifier(lists)}"
        )
    near = found["near"].combine_chunks().flatten().to_numpy().reshape(found.num_rows, -1)
    units = np.array(queries)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    weights = np.tile(_extended(units.shape[1], SPREAD_WEIGHT), (len(units), 1))
    asked = np.hstack([units, weights])
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    best: npt.NDArray[np.float64] = (asked @ near.T / np.linalg.norm(near, axis=1)).max(axis=1)
    return best


def _extended(dimension: int, value: float) -> list[float]:
    """Return what stands behind a vector where lists are ranked: `value`, and zeros.

    The length of both together is divided by 8, for the sake of the codec.
    """
    return [value] + [0.0] * (-(dimension + 1) % 8)


def _lists(narrow: str) -> str:
    return f"{narrow}_lists"


def _totals(narrow: str) -> str:
    return f"{narrow}_totals"


def _kept(table: str, plan: BuildPlan, vector: str) -> tuple[str, str]:
    """Return the tables of trained lists and of assignments, which builds of one root share."""
    shared = f"{search_table(table)}_{plan.root}_{vector_suffix(vector)}"
    return f"{shared}_trained", f"{shared}_assigned"
