"""What a kind of search table does: all that is different from one kind to another.

A kind is a subclass of `Kind` in a module of its own, with its SQL in `sql/<name>/` and an entry in
`laion.clickhouse.search_table.kinds.OFFERS`. It has no state: what a build is to be is in its plan.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from laion.clickhouse.client import Client
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import BucketState, BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from laion.columns import Column
from laion.shards import HeldShard
from laion.vectors import Dimensions


class SearchProfile(ABC):
    """How thoroughly an index is searched; its text says so to people."""

    @abstractmethod
    def to_json(self) -> dict[str, float]:
        """Return what `Kind.read_profile` makes it of again."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the ClickHouse settings of a query."""

    @abstractmethod
    def widened(self, limit: int) -> SearchProfile | None:
        """Return the one to ask `limit` rows with after filters left too few.

        None stands for a search of all rows, the profile itself for there are no more.
        """


OnProgress = Callable[[float], None]
"""Called now and then with the share of an index that is built, from 0 to 1."""


@dataclass(frozen=True)
class Estimate:
    """What the indexes on every vector need: bytes in RAM and on disk, CPU seconds to build.

    `search_cpu_s` is of one search for ten rows.
    """

    memory_bytes: int
    disk_bytes: int
    build_cpu_s: float
    search_cpu_s: float


@dataclass(frozen=True)
class SizedPlan:
    """Options with everything decided, what they will need, and what to bear in mind.

    `choice` says how `auto` chose the kind, with the figures of all.
    """

    options: IndexOptions
    estimate: Estimate
    notes: tuple[str, ...]
    choice: str = ""


@dataclass(frozen=True)
class Contents:
    """What a partition of a build holds: rows, and bytes of index.

    `problem` says in a few words why searches would miss some of it or read all; empty: they do
    not.
    """

    rows: int
    index_bytes: int
    problem: str = ""

    def are_of(self, bucket: BucketState) -> bool:
        """Whether this is what a bucket was when it was built: all of its rows and its index."""
        kept = (bucket.rows, bucket.index_bytes)
        return not self.problem and (self.rows, self.index_bytes) == kept


def indexable(vectors: Iterable[str]) -> str:
    """Return the condition of the rows that an index can hold: no vector is zero or not finite."""
    norms = [f"L2Norm({quote_identifier(vector)})" for vector in vectors]
    return " AND ".join(f"isFinite({norm}) AND {norm} > 0" for norm in norms)


class Kind(ABC):
    """A kind of search table."""

    ladder: ClassVar[tuple[SearchProfile, ...]]
    """What the gate tries, cheapest first."""
    is_live: ClassVar[bool] = False
    """Whether the base table itself is searched: nothing that is searched can be stale."""
    copies_rows: ClassVar[bool] = False
    """Whether all of a row is in the search table, so that it takes as much disk again."""
    exact_settings: ClassVar[Mapping[str, Any]]
    """The settings of a search that reads every row."""
    view_note: ClassVar[str]
    """What the comment of a view says to people of how it searches."""

    @abstractmethod
    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        """Decide on what the options leave open, and size the indexes of `rows` rows.

        Raises BadRequest for what it cannot build, IndexTooLarge.
        """

    def kept_parameters(self, rows: int, in_use: IndexOptions) -> Mapping[str, int]:
        """Return the parameters of the table in use that still suit a table of so many rows.

        A build takes them where none are asked for.
        """
        return {}

    def most_buckets(self, rows: int, options: IndexOptions) -> int:
        """Return how many partitions a table may have, to be searched well; options are decided."""
        return options.buckets

    @abstractmethod
    def describe(self, options: IndexOptions) -> str:
        """Return the decided options in a few words."""

    @abstractmethod
    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        """Return the name by which a build is searched, before and after it is published."""

    @abstractmethod
    def table_of(self, place: str, vector: str) -> str:
        """Return the table with `id` and a vector's column of a build."""

    def tables(self, table: str, plan: BuildPlan, *, in_use: bool) -> set[str]:
        """Return the tables of a build."""
        place = self.place(table, plan, in_use=in_use)
        return {self.table_of(place, vector) for vector in plan.vectors}

    def in_bucket(self, plan: BuildPlan, bucket: int) -> str:
        """Return the condition of the rows of a bucket."""
        return f"_partition_id = '{bucket}'"

    @abstractmethod
    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        """Create what the build fills, unless it is there."""

    @abstractmethod
    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        """Replace a bucket by the rows that the base table has."""

    @abstractmethod
    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        """Build the index of a filled bucket, or wait for a build that is running already."""

    def complete(self, client: Client, table: str, plan: BuildPlan) -> None:  # noqa: B027
        """Make what searches need beside the buckets, all of which are built. Can be repeated."""

    @abstractmethod
    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        """Return what a bucket of a build holds."""

    @abstractmethod
    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        """Return whether the build in use has the columns that a new one of its kind would have."""

    def can_take_over(self, client: Client, table: str, plan: BuildPlan) -> bool:
        """Return whether buckets of the one in use, of the same layout and columns, fit into this.

        It is asked when what the build fills was created.
        """
        return True

    @abstractmethod
    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        """Put a bucket of the build in use into this one, index included."""

    def publish(self, client: Client, table: str, plan: BuildPlan) -> None:  # noqa: B027
        """Put a build where it is searched, before its views are made.

        Harmless when it is there already. The tables of the one in use are dropped afterwards.
        """

    def check_names(self, client: Client, table: str) -> None:  # noqa: B027
        """Raise TableMismatch when somebody else's table has a name that `publish` needs."""

    def retire(self, client: Client, table: str) -> None:  # noqa: B027
        """Drop what `publish` has left of a build of this kind; views are of another one now."""

    def condition(self, table: str, column: Column, test: str) -> str:
        """Return a condition of a column of the base table as this kind's rows can answer it."""
        return test

    @abstractmethod
    def shown_from(self, table: str, place: str) -> str:
        """Return the table whose columns a search returns."""

    @abstractmethod
    def read_profile(self, knobs: Mapping[str, Any]) -> SearchProfile:
        """Return the profile that was stored; that to begin with when nothing was."""

    def distinguish(
        self,
        client: Client,
        narrow: str,
        enough: SearchProfile,
        own: Mapping[str, SearchProfile],
        asked: Mapping[str, Sequence[Sequence[float]]],
    ) -> SearchProfile | None:
        """Return a profile by which easy queries take less than hard ones; None where none can.

        `enough` is enough for all kinds of query, `own` for each kind alone; `asked` are queries of
        each kind. `narrow` is the table of their vector.
        """
        return None

    @abstractmethod
    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        """Return the SELECT of `question.nearest_columns` and `distance` of the nearest rows.

        As many as `question.candidates`, or more where that makes them more accurate.
        """

    def search(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        """Return the SELECT that answers a question, nearest first; exactly without a profile.

        It has id, distance and the columns that are asked for, and its settings in it.
        """
        settings = self.exact_settings if profile is None else profile.settings()
        return question.statement(
            self.nearest(table, place, plan, question, profile),
            shown_from=self.shown_from(table, place),
            settings=", ".join(f"{name} = {value}" for name, value in settings.items()),
        )

    @abstractmethod
    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        """Return whether `EXPLAIN indexes = 1` of a search for ids shows that its index is used."""

    def drift(
        self, client: Client, table: str, plan: BuildPlan, known: Collection[HeldShard]
    ) -> Iterable[str]:
        """Return by what the rows have become unlike those of the shards `known`.

        By these the index was made; it would serve the others better if it was made again.
        """
        return ()

    @abstractmethod
    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        """Return a SELECT of one row that is true in every column when what is in use is whole.

        Airflow's SQLCheckOperator runs it. `rows` is how many there must be.
        """
