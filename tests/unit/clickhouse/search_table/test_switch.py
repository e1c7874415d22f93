"""One build takes the place of another: killed in it, searched in it, from an earlier release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.identifiers import quote_string
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table import search as search_module
from laion.clickhouse.search_table import views
from laion.clickhouse.search_table.build import begin_build, build_bucket, publish_build
from laion.clickhouse.search_table.in_use import InUse, read_in_use, read_state
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.recall import measure_recall
from laion.clickhouse.search_table.recheck import recheck_recall
from laion.clickhouse.search_table.search import Target, search
from laion.errors import TableGone, TableMismatch
from tests.shard_files import DIMENSION, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    QUERIES,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

ROWS = 300
VECTOR = [0.25] * DIMENSION
OPTIONS = {
    kind: IndexOptions(kind=kind, quantization="auto", buckets=2, min_bucket_rows=1)
    for kind in OFFERS
}
KINDS = pytest.mark.parametrize("kind", OFFERS)
PAIRS = pytest.mark.parametrize(
    ("first", "second"),
    [
        ("hnsw", "hnsw"),
        ("hnsw", "quantized"),
        ("quantized", "hnsw"),
        ("quantized", "quantized"),
        ("exact", "quantized"),
        ("hnsw", "exact"),
        ("quantized", "ivf"),
        ("ivf", "hnsw"),
    ],
)


@pytest.fixture
def base(client: Client, tmp_path: Path) -> Client:
    make_tables(client)
    for shard in range(2):
        write_little_shard(tmp_path, shard, ROWS)
        publish_files(client, tmp_path, shard, tmp_path)
    return client


def accepted(client: Client, kind: str, run_id: str) -> tuple[Builds, BuildPlan]:
    """A build that only has to be published."""
    builds = Builds(client, TABLE, TaskOrigin("laion_ingest", run_id))
    begun = begin_build(builds, OPTIONS[kind])
    assert not isinstance(begun, Holder)
    plan, buckets = begun
    for bucket in buckets:
        build_bucket(builds, plan, bucket)
    measure_recall(builds, plan, target=0.0, queries=QUERIES, budget=10**9)
    return builds, plan


def answers(client: Client) -> bool:
    """Whether both views, and the library by each vector, find as many rows as asked for."""
    found = [
        len(client.query(f"SELECT * FROM {TABLE}_near{which}(q = {VECTOR})").result_rows)
        for which in ("", "_text")
    ]
    found += [
        len(search(client, TABLE, Target.vector(VECTOR), column=column).hits)
        for column in ("image_embedding", "text_embedding")
    ]
    return found == [10] * 4


def kill_after(
    patch: pytest.MonkeyPatch, client: Client, word: str, times: int = 1, *, before: bool = False
) -> None:
    """The task is killed when it has, or would have, run so many statements with a word."""
    command, seen = client.command, 0

    def run(text: str, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += word in text
        if before and seen == times:
            raise KeyboardInterrupt
        answer = command(text, *arguments, **options)
        if seen == times:
            raise KeyboardInterrupt
        return answer

    patch.setattr(client, "command", run)


@PAIRS
@pytest.mark.parametrize("views_done", [0, 1, 2])
def test_killed_while_it_is_put_in_place_all_views_answer_and_the_next_try_ends_it(
    base: Client, first: str, second: str, views_done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_search(base, OPTIONS[first], origin=TaskOrigin("laion_ingest", "before"))
    builds, plan = accepted(base, second, "killed")
    with monkeypatch.context() as patch:
        kill_after(patch, base, "OR REPLACE VIEW", max(1, views_done), before=not views_done)
        with pytest.raises(KeyboardInterrupt):
            publish_build(builds, plan)
    assert answers(base)

    publish_build(builds, plan)

    assert answers(base)
    assert read_in_use(base, TABLE) == plan
    assert {view.build_id for view in read_state(base, TABLE).views.values()} == {plan.build_id}


@PAIRS
def test_nothing_is_left_of_the_build_before(base: Client, first: str, second: str) -> None:
    build_search(base, OPTIONS[first], origin=TaskOrigin("laion_ingest", "before"))
    builds, plan = accepted(base, second, "next")

    publish_build(builds, plan)

    left = base.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        f"AND startsWith(name, '{TABLE}_search')"
    ).result_rows
    own = {
        "exact": set(),
        "hnsw": {f"{TABLE}_search"},
        "quantized": {f"{TABLE}_search_{plan.build_id}_{vector}" for vector in ("image", "text")},
        "ivf": {
            f"{TABLE}_search_{plan.build_id}_{vector}{of}"
            for vector in ("image", "text")
            for of in ("", "_lists", "_totals", "_trained", "_assigned")
        },
    }
    assert {row[0] for row in left} == own[second]


@PAIRS
def test_killed_between_two_views_both_answer_while_another_run_builds(
    base: Client, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_search(base, OPTIONS[first], origin=TaskOrigin("laion_ingest", "before"))
    builds, plan = accepted(base, second, "killed")
    with monkeypatch.context() as patch:
        kill_after(patch, base, "OR REPLACE VIEW")
        with pytest.raises(KeyboardInterrupt):
            publish_build(builds, plan)
    builds.append(plan.build_id, "failed")

    later, next_plan = accepted(base, "quantized", "next")

    assert answers(base)
    publish_build(later, next_plan)
    assert answers(base)
    left = base.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        f"AND startsWith(name, '{TABLE}_search')"
    ).result_rows
    assert {row[0] for row in left} == {
        f"{TABLE}_search_{next_plan.build_id}_{vector}" for vector in ("image", "text")
    }


@KINDS
def test_a_search_in_the_moment_of_the_switch_finds_the_new_build(
    base: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of the build in use is of one whose tables are gone when it is searched."""
    build_search(base, OPTIONS["quantized"], origin=TaskOrigin("laion_ingest", "before"))
    old = read_state(base, TABLE)
    build_search(base, OPTIONS[kind], origin=TaskOrigin("laion_ingest", "after"))
    stale = [InUse(old.plan, {})]
    read = search_module.read_state
    monkeypatch.setattr(
        search_module, "read_state", lambda *names: stale.pop() if stale else read(*names)
    )

    assert len(search(base, TABLE, Target.vector(VECTOR)).hits) == 10
    assert not stale


def test_more_like_a_row_outlives_the_switch(base: Client) -> None:
    build_search(base, OPTIONS["quantized"], origin=TaskOrigin("laion_ingest", "before"))
    target = Target.row(base, TABLE, 7, "image_embedding")
    build_search(base, OPTIONS["hnsw"], origin=TaskOrigin("laion_ingest", "after"))

    assert len(search(base, TABLE, target).hits) == 10


@KINDS
def test_killed_after_it_was_put_in_place_the_build_can_be_planned_again(
    base: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_search(base, OPTIONS["hnsw"], origin=TaskOrigin("laion_ingest", "before"))
    builds, plan = accepted(base, kind, "killed")
    with monkeypatch.context() as patch:
        kill_after(patch, base, "OR REPLACE VIEW", 2)
        with pytest.raises(KeyboardInterrupt):
            publish_build(builds, plan)

    again, next_plan = accepted(base, kind, "killed")
    publish_build(again, next_plan)

    assert next_plan.build_id != plan.build_id
    assert read_in_use(base, TABLE) == next_plan
    assert answers(base)


@KINDS
def test_somebody_else_s_search_table_is_left_alone(base: Client, kind: str) -> None:
    build_search(base, OPTIONS["exact"], origin=TaskOrigin("laion_ingest", "before"))
    base.command(f"CREATE TABLE {TABLE}_search (a Int8) ENGINE = MergeTree ORDER BY a")
    base.command(f"INSERT INTO {TABLE}_search VALUES (5)")

    if kind == "hnsw":
        with pytest.raises(TableMismatch, match=f"'{TABLE}_search' exists and was not made by"):
            build_search(base, OPTIONS[kind], origin=TaskOrigin("laion_ingest", "next"))
    else:
        build_search(base, OPTIONS[kind], origin=TaskOrigin("laion_ingest", "next"))

    assert base.command(f"SELECT sum(a) FROM {TABLE}_search") == 5
    assert answers(base)


def test_a_table_that_stays_gone_is_an_error(base: Client) -> None:
    plan = build_search(base, OPTIONS["quantized"])
    base.command(f"DROP TABLE {TABLE}_search_{plan.build_id}_image SYNC")

    with pytest.raises(TableGone):
        search(base, TABLE, Target.vector(VECTOR))
    with pytest.raises(TableGone):
        recheck_recall(base, TABLE, queries=QUERIES, budget=10**9)


class TestEarlierRelease:
    """It made `<table>_search`, with a plan that names no kind, and no views."""

    @pytest.fixture
    def earlier(self, base: Client, monkeypatch: pytest.MonkeyPatch) -> BuildPlan:
        with monkeypatch.context() as patch:
            patch.setattr(views, "view_names", lambda table, vectors: {})
            plan = build_search(base, replace(OPTIONS["hnsw"], quantization="f32"))
        comment = base.command(
            f"SELECT comment FROM system.tables WHERE name = '{TABLE}_search' "
            "AND database = currentDatabase()"
        )
        old = str(comment).replace('"kind": "hnsw", ', "")
        assert old != comment
        base.command(f"ALTER TABLE {TABLE}_search MODIFY COMMENT {quote_string(old)}")
        assert read_state(base, TABLE).views == {}
        return plan

    def test_it_is_searched_as_it_was(self, base: Client, earlier: BuildPlan) -> None:
        assert read_in_use(base, TABLE) == earlier
        assert len(search(base, TABLE, Target.vector(VECTOR)).hits) == 10
        assert recheck_recall(base, TABLE, queries=QUERIES, budget=10**9)

    def test_the_next_build_takes_it_over_and_makes_views(
        self, base: Client, earlier: BuildPlan
    ) -> None:
        builds = Builds(base, TABLE, TaskOrigin("laion_ingest", "next"))
        begun = begin_build(builds, replace(OPTIONS["hnsw"], quantization="f32"))
        assert not isinstance(begun, Holder)
        plan, to_build = begun

        assert to_build == []
        measure_recall(builds, plan, target=0.0, queries=QUERIES, budget=10**9)
        publish_build(builds, plan)
        assert answers(base)
