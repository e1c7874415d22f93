"""Every setting of this package, read from environment variables `LAION_<NAME>`."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path

from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from laion.errors import BadSetting
from laion.machine import count_cores, fitting_shards, fitting_tasks
from laion.urls import local_path


def _default_staging_uri() -> str:
    airflow_home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser().absolute()
    return (airflow_home / "laion-staging").as_uri()


def _default_shards_in_flight(staging_uri: str) -> int:
    if staging_uri.startswith("file://"):
        return fitting_shards(local_path(staging_uri))
    return 2 * count_cores()


class Settings(BaseSettings):
    """Settings that belong to an installation, not to a run; a run's choices are DAG params."""

    model_config = SettingsConfigDict(env_prefix="LAION_", frozen=True)

    clickhouse_conn_id: str = Field(
        "clickhouse_default", description="Airflow connection of the target ClickHouse."
    )
    clickhouse_cluster: str = Field(
        "",
        description="Cluster whose servers are the replicas of one ClickHouse shard: tables are "
        "made on all of them. Empty: one server, or ClickHouse Cloud.",
    )
    clickhouse_shards_cluster: str = Field(
        "",
        description="Cluster over which the tables `<table>_all` read. Empty: the same.",
    )
    alerts_conn_id: str = Field(
        "laion_alerts", description="Airflow connection (type apprise) that alerts go to."
    )
    profiles_dir: str = Field(
        "", description="Directory with dataset profiles of your own, `NAME.toml` each."
    )
    alert_settle_s: float = Field(
        5,
        ge=0,
        # Airflow ends a failed task's callbacks after 20 seconds (core.task_success_overtime).
        le=10,
        description="Seconds that an alert waits for other failures of the same cause.",
    )
    runbook_url: str = Field(
        "docs/operations.md",
        description="Where alerts say the runbook is, such as a copy of it in your wiki.",
    )
    deadline_hours: float = Field(
        48,
        ge=0,
        description="Hours after which a run of `laion_ingest` that has not ended is told to be "
        "late. 0: never.",
    )
    staging_uri: str = Field(
        default_factory=_default_staging_uri,
        description="Where files lie between download and load: a directory that the workers share "
        "(`file://…`), or `s3://bucket/prefix`.",
    )
    s3_conn_id: str = Field(
        "laion_s3",
        description="Airflow connection (type aws) of sources and staging on S3. Without it, S3 is "
        "reached as AWS clients find it: environment, `~/.aws`, role of the machine.",
    )
    source_s3_conn_id: str = Field(
        "", description="The same for sources alone. Empty: `s3_conn_id`."
    )
    clickhouse_s3_collection: str = Field(
        "",
        description="Named collection by which ClickHouse reads the staging area on S3. Empty: it "
        "is sent the credentials of the connection, hidden from its logs.",
    )
    scratch_dir: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / "laion-scratch",
        description="Directory of each worker in which tasks work when staging is on S3.",
    )
    max_shards_in_flight: int = Field(
        default_factory=lambda known: _default_shards_in_flight(known.get("staging_uri", "")),
        ge=1,
        description="Shards that may lie in the staging area at once; a download waits for room.",
    )
    max_parallel_downloads: int = Field(
        4, ge=1, description="Shards downloaded at once, over all runs."
    )
    max_connections: int = Field(
        12,
        ge=1,
        description="Connections to a source at once, over all downloads; each download gets its "
        "share. The task preflight takes all of them.",
    )
    max_parallel_converts: int = Field(
        default_factory=fitting_tasks,
        ge=1,
        description="Shards converted at once, over all runs.",
    )
    max_parallel_loads: int = Field(
        default_factory=fitting_tasks,
        ge=1,
        description="Shards loaded at once, over all runs.",
    )
    pool: str = Field(
        "", description="Airflow pool of the shard tasks; it must exist. Empty: the default pool."
    )
    connect_timeout_s: float = Field(
        10, gt=0, description="Seconds to wait for a source to accept a connection."
    )
    read_timeout_s: float = Field(
        60, gt=0, description="Seconds to wait for the next bytes of a source."
    )
    retries: int = Field(3, ge=0, description="Retries of a task whose error may pass by itself.")
    retry_delay_s: float = Field(
        5, ge=0, description="Seconds before the first retry; each further one waits twice as long."
    )
    search_buckets: int = Field(
        5, ge=1, le=64, description="Partitions of a search table, each a range of shards."
    )
    max_parallel_index_builds: int = Field(
        1, ge=1, description="Partitions indexed at once; each takes every core of the server."
    )
    clickhouse_memory: ByteSize | None = Field(
        None,
        description="RAM of the ClickHouse server, such as `64GB`, where it does not tell itself; "
        "vector indexes are sized by it.",
    )
    recall_queries: int = Field(
        500, ge=1, le=1000, description="Queries of each kind by which the recall is measured."
    )
    recall_budget: int = Field(
        5_000_000_000,
        ge=1,
        description="Distances computed to know the exact answers; beyond, only some partitions "
        "are measured.",
    )
    pages_conn_id: str = Field(
        "",
        description="Airflow connection that the pages Shards and Search read through, of a user "
        "that may only read. Empty: `clickhouse_conn_id`.",
    )
    pages_timeout_s: float = Field(
        30, gt=0, description="Seconds that a query of the pages may take."
    )
    pages_memory: ByteSize = Field(
        ByteSize(10_000_000_000),
        gt=0,
        description="Memory that a query of the pages may take, such as `10GB`.",
    )
    pictures_mirror: str = Field(
        "",
        description="Where the page Search finds pictures instead of at their own addresses: "
        "pairs `https://host/=https://mirror/`, separated by commas.",
    )
    models_dir: str = Field("", description="Directory of models by name; see docs/udf.md.")
    udf_scripts_dir: str = Field(
        "", description="The ClickHouse server's user_scripts, as a worker of Airflow sees it."
    )
    udf_functions_dir: str = Field(
        "",
        description="Where the server reads function definitions (`*_function.xml`), as a worker "
        "of Airflow sees it.",
    )
    udf_conn_id: str = Field(
        "",
        description="Airflow connection by which `deploy_udfs` tells the server to read its "
        "functions again. Empty: `clickhouse_conn_id`.",
    )
    udf_ssh_conn_ids: str = Field(
        "",
        description="Airflow connections (type SSH) of all hosts to deploy functions to over SFTP, "
        "separated by commas. Each host's ClickHouse is asked through `udf_conn_id` with the host "
        "in place of its own, or through another connection given as `ssh_conn=clickhouse_conn`.",
    )
    udf_models_dir: str = Field(
        "", description="`models_dir` as the ClickHouse server sees it. Empty: the same."
    )
    udf_python: str = Field(
        "/usr/bin/python3",
        description="Python of the ClickHouse server, with onnxruntime, tokenizers, Pillow, numpy.",
    )
    udf_image_root: str = Field(
        "",
        description="The server's directory that `encode_image` may read. Empty: no such function.",
    )
    udf_pool_size: int = Field(
        1, ge=1, le=64, description="Processes of each function, each with the model in memory."
    )
    udf_threads: int = Field(2, ge=1, description="Threads that a process computes one call with.")


@cache
def get_settings() -> Settings:
    """Return the settings of this process. Raises BadSetting, naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"LAION_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise BadSetting(f"a setting cannot be used: {problems}") from error
