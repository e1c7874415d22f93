from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from laion.clickhouse.shards.load import load_query_id
from laion.orchestration.links import BoardLink, QueryLink, SourceLink
from laion.shards import ShardParquet, ShardSpec, StagedShard

URLS = {
    role: [f"https://user:secret@mirror.example/{role}_7", f"https://other.example/{role}_7"]
    for role in ("image_embedding", "text_embedding", "metadata")
}
SPEC = ShardSpec(dataset="laion400m", table="laion400m", shard=7, urls=URLS)
PARQUET = ShardParquet(SPEC, "aaaa0001", "/staging/7.parquet", 1, 1, {}, 0, 0, "unknown")


@dataclass
class Task:
    """An operator as far as links see it: the rendered arguments of its call."""

    op_args: list[dict[str, Any]]
    op_kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Instance:
    try_number: int = 2


@pytest.mark.parametrize("record", [SPEC, PARQUET, StagedShard(PARQUET, "staging", 1)])
def test_each_task_of_a_shard_links_to_its_cell(record: Any) -> None:
    link = BoardLink().get_link(Task([record.to_json()]), ti_key=Instance())

    assert link.endswith("/plugin/laion-shards/laion/shards?table=laion400m#7")


def test_the_source_file_is_linked_without_a_password() -> None:
    link = SourceLink().get_link(Task([SPEC.to_json()]), ti_key=Instance())

    assert link == "https://mirror.example/metadata_7"


@pytest.mark.parametrize(
    ("returned", "attempt"),
    [(None, "aaaa0001"), (StagedShard(replace(PARQUET, attempt="bbbb0002"), "", 1), "bbbb0002")],
    ids=["failed", "loaded an attempt of its own"],
)
def test_a_load_links_to_the_query_that_it_ran(
    monkeypatch: pytest.MonkeyPatch, returned: StagedShard | None, attempt: str
) -> None:
    # Without Airflow around it a task has no XCom; the tests of the pages follow a real link.
    value = returned and returned.to_json()
    monkeypatch.setattr(XCom, "get_value", lambda *, ti_key, key: value)

    link = QueryLink().get_link(Task([PARQUET.to_json()]), ti_key=Instance(try_number=2))

    assert link.endswith(f"laion/query?id={load_query_id('laion400m', 7, attempt, 2)}")
