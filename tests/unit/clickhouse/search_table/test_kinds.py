"""The interface of kinds: all that is generic works with one that it never heard of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import BackfillRequest, plan_backfill
from laion.clickhouse.identifiers import quote_string, search_table
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table import build, kinds
from laion.clickhouse.search_table.build import begin_build
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import OFFERS, Offer, kind_of
from laion.clickhouse.search_table.kinds.kind import (
    Contents,
    Estimate,
    Kind,
    OnProgress,
    SearchProfile,
    SizedPlan,
)
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.recheck import recheck_recall
from laion.clickhouse.search_table.search import Target, search
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest
from laion.monitor import check_index
from laion.vectors import Dimensions
from laion.web.status import read_search_table
from tests.shard_files import read_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import TABLE, build_search, make_tables, publish_files

ROWS = 300
OPTIONS = IndexOptions(kind="plain", buckets=2, min_bucket_rows=1)


class PlainProfile(SearchProfile):
    def __str__(self) -> str:
        return "every row"

    def to_json(self) -> dict[str, int]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"max_threads": 2}

    def widened(self, limit: int) -> None:
        return None


class Plain(Kind):
    """A table of ids and vectors without an index, under its own name from the beginning."""

    ladder = (PlainProfile(),)
    exact_settings: ClassVar[Mapping[str, Any]] = {"max_threads": 1}
    view_note = "Every row is read."

    def plan(
        self, rows: int, dimensions: Dimensions, options: IndexOptions, server: ServerFacts
    ) -> SizedPlan:
        return SizedPlan(replace(options, parameters={"level": 3}), Estimate(0, 0, 0.0, 0.0), ())

    def describe(self, options: IndexOptions) -> str:
        return f"plain, level {options.parameters['level']}"

    def place(self, table: str, plan: BuildPlan, *, in_use: bool) -> str:
        return f"{search_table(table)}_{plan.build_id}"

    def table_of(self, place: str, vector: str) -> str:
        return place

    def create(self, client: Client, table: str, plan: BuildPlan) -> None:
        comment = quote_string(json.dumps({"laion": {"build": json.loads(plan.to_json())}}))
        client.command(
            f"CREATE TABLE IF NOT EXISTS {self.place(table, plan, in_use=False)} AS {table} "
            f"ENGINE = MergeTree PARTITION BY intDiv(shard, {plan.shards_per_bucket}) ORDER BY id "
            f"COMMENT {comment}"
        )

    def fill(self, client: Client, table: str, plan: BuildPlan, bucket: int) -> None:
        place, (first, last) = self.place(table, plan, in_use=False), plan.shards_of(bucket)
        client.command(f"ALTER TABLE {place} DROP PARTITION {bucket}")
        client.command(
            f"INSERT INTO {place} SELECT * FROM {table} WHERE shard BETWEEN {first} AND {last}"
        )

    def build_index(
        self, client: Client, table: str, plan: BuildPlan, bucket: int, on_progress: OnProgress
    ) -> None:
        on_progress(1.0)

    def contents(self, client: Client, place: str, plan: BuildPlan, bucket: int) -> Contents:
        query = f"SELECT count() FROM {place} WHERE _partition_id = '{bucket}'"
        return Contents(int(str(client.command(query))), index_bytes=0)

    def has_same_columns(self, client: Client, table: str, old: BuildPlan) -> bool:
        return True

    def take_over(
        self, client: Client, table: str, plan: BuildPlan, old: BuildPlan, bucket: int
    ) -> None:
        new, before = (self.place(table, one, in_use=True) for one in (plan, old))
        client.command(f"ALTER TABLE {new} ATTACH PARTITION {bucket} FROM {before}")

    def shown_from(self, table: str, place: str) -> str:
        return place

    def read_profile(self, knobs: Mapping[str, int]) -> PlainProfile:
        return PlainProfile()

    def nearest(
        self,
        table: str,
        place: str,
        plan: BuildPlan,
        question: Question,
        profile: SearchProfile | None,
    ) -> str:
        distance = f"{plan.options.metric}({question.vector}, {question.target})"
        return (
            f"SELECT {question.nearest_columns}, {distance} AS distance FROM {place} "
            f"{question.where}\nORDER BY distance LIMIT {question.candidates}"
        )

    def is_used(self, explained: Sequence[str], vector: str) -> bool:
        return any("MergeTree" in line for line in explained)

    def check(self, table: str, plan: BuildPlan, rows: int) -> str:
        return f"SELECT count() = {rows} FROM {self.place(table, plan, in_use=True)}"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Offer(f"{__name__}:Plain", "every row, whole", ("cosineDistance",), ("whole",))
    monkeypatch.setitem(OFFERS, "plain", offer)
    load_kind = kinds.load_kind
    monkeypatch.setattr(
        kinds, "load_kind", lambda name: Plain() if name == "plain" else load_kind(name)
    )
    monkeypatch.setattr(build, "load_kind", kinds.load_kind)


@pytest.fixture
def base(client: Client, shard_directory: Path, tmp_path: Path) -> Client:
    make_tables(client)
    for shard in range(3):
        write_little_shard(shard_directory, shard, ROWS)
        publish_files(client, shard_directory, shard, tmp_path)
    return client


def test_a_kind_is_built_measured_searched_and_watched(
    base: Client, shard_directory: Path, plain: None
) -> None:
    plan = build_search(base, OPTIONS, target=1.0)

    assert read_in_use(base, TABLE) == plan
    vector = read_vectors(shard_directory, "image_embedding", 1)[7]
    found = search(base, TABLE, Target.vector(vector.tolist()), limit=3)
    assert found.hits[0].id == 100_000_007
    assert f"FROM `{TABLE}_near`" in found.sql
    assert all(now.at_10 == 1.0 for now in recheck_recall(base, TABLE, queries=3, budget=10**9))
    assert list(check_index(base, TABLE)) == []
    shown = read_search_table(base, TABLE)
    assert shown is not None
    assert (shown.index, shown.recall[0].profile) == ("plain, level 3", "every row")
    assert base.command(kind_of(plan.options).check(TABLE, plan, 3 * ROWS)) == 1


def test_what_has_not_changed_is_taken_over(
    base: Client, shard_directory: Path, tmp_path: Path, plain: None
) -> None:
    build_search(base, OPTIONS)
    publish_files(base, shard_directory, 2, tmp_path, attempt="aaaa0002")
    stale = plan_backfill(base, BackfillRequest(TABLE, which="stale"))
    assert [repair.shard for repair in stale] == [2]

    begun = begin_build(Builds(base, TABLE, TaskOrigin("laion_ingest", "next")), OPTIONS)

    assert not isinstance(begun, Holder)
    assert begun[1] == [1]


def test_a_table_can_be_moved_from_one_kind_to_another(
    base: Client, shard_directory: Path, plain: None
) -> None:
    build_search(base)
    build_search(base, OPTIONS, origin=TaskOrigin("laion_ingest", "plain"))
    vector = read_vectors(shard_directory, "text_embedding", 0)[5]

    found = search(base, TABLE, Target.vector(vector.tolist()), column="text_embedding", limit=3)

    assert found.hits[0].id == 5
    assert np.isclose(found.hits[0].distance, 0, atol=1e-3)
    assert begin_build(Builds(base, TABLE, TaskOrigin("laion_ingest", "back")), IndexOptions())


def test_an_unknown_kind_is_refused_with_the_params_name() -> None:
    with pytest.raises(BadRequest, match="'plain' is none of auto, exact, hnsw"):
        kind_of(OPTIONS)
