"""A shard's way into ClickHouse, step by step, as the tasks of a run take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clickhouse_connect.driver.client import Client

from laion.clickhouse.ledger import Ledger, ShardEvent, TaskOrigin
from laion.clickhouse.schema import TableIdentity, ensure_base_table, ensure_ledger
from laion.clickhouse.search_table.build import begin_build, build_bucket, publish_build
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.lease import Builds, Holder
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.search_table.recall import measure_recall
from laion.clickhouse.shards.load import load_shard
from laion.clickhouse.shards.publish import ShardContents, publish_shard
from laion.convert import Rules, convert_shard
from laion.shards import ShardFiles, StagedShard
from laion.vectors import clip_dimensions
from tests.shard_files import ATTEMPT, DIMENSION, files_of

TABLE = "little"
ORIGIN = TaskOrigin(dag_id="laion_ingest", run_id="run_1", log_url="http://airflow/log")
OPTIONS = IndexOptions(buckets=2, min_bucket_rows=1, parameters={"m": 8, "ef_construction": 64})
QUERIES = 3
IDENTITY = TableIdentity("little", clip_dimensions(DIMENSION))


def make_tables(client: Client, table: str = TABLE) -> Ledger:
    """Create the base table and the ledger, as `plan` does."""
    ensure_ledger(client)
    ensure_base_table(client, table, IDENTITY)
    return Ledger(client)


def event(shard: int, stage: str, state: str, attempt: str = ATTEMPT, **more: object) -> ShardEvent:
    """Return an event of a shard; `run_id` names another run."""
    origin = replace(ORIGIN, run_id=str(more.pop("run_id", ORIGIN.run_id)))
    start = ShardEvent(TABLE, shard, "little", origin, stage, state, attempt)
    return replace(start, **more)  # type: ignore[arg-type]


def stage_shard(
    client: Client, files: ShardFiles, directory: Path, rules: Rules | None = None
) -> StagedShard:
    """Convert and load a shard, beginning its attempt in the ledger."""
    started = event(files.spec.shard, "download", "started", files.attempt)
    Ledger(client).append([replace(started, table=files.spec.table)])
    target = directory / f"{files.spec.shard}-{files.attempt}.parquet"
    return load_shard(client, convert_shard(files, target, rules))


def publish(client: Client, staged: StagedShard) -> ShardContents:
    """Publish a staged shard and record it, as `validate` does."""
    ledger = Ledger(client)
    contents = publish_shard(client, ledger, staged)
    spec, attempt = staged.parquet.spec, staged.parquet.attempt
    done = event(spec.shard, "publish", "done", attempt)
    done = replace(done, table=spec.table, rows_loaded=contents.rows, hash=contents.hash)
    ledger.append([done])
    return contents


def build_search(
    client: Client,
    options: IndexOptions = OPTIONS,
    *,
    table: str = TABLE,
    origin: TaskOrigin = ORIGIN,
    target: float = 0.0,
    takes_over: bool = True,
) -> BuildPlan:
    """Build, measure and publish the search table, as the tasks of a run do."""
    builds = Builds(client, table, origin)
    begun = begin_build(builds, options, takes_over=takes_over)
    assert not isinstance(begun, Holder), begun
    plan, buckets = begun
    for bucket in buckets:
        build_bucket(builds, plan, bucket)
    measure_recall(builds, plan, target=target, queries=QUERIES, budget=10**9)
    publish_build(builds, plan)
    return plan


def shadow_of(table: str, plan: BuildPlan) -> str:
    """Return the name of a search table under construction."""
    return kind_of(plan.options).place(table, plan, in_use=False)


def publish_files(
    client: Client,
    source: Path,
    shard: int,
    directory: Path,
    *,
    table: str = TABLE,
    attempt: str = ATTEMPT,
    rules: Rules | None = None,
) -> StagedShard:
    """Take the files of a shard all the way into the base table; its staging table stays."""
    files = files_of(source, shard, attempt=attempt, table=table)
    staged = stage_shard(client, files, directory, rules)
    publish(client, staged)
    return staged
