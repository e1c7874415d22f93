"""ClickHouse reads a shard's Parquet file from S3, here moto's server, by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.identifiers import quote_string
from laion.clickhouse.schema import ensure_base_table
from laion.clickhouse.shards.load import load_shard
from laion.clickhouse.shards.publish import ShardContents, read_contents
from laion.clickhouse.shards.pull import S3Access, check_access, pull_shard
from laion.clickhouse.users import read_grants
from laion.convert import Rules, convert_shard
from laion.errors import (
    BadMetadata,
    ClickHouseAuthFailed,
    StagingGone,
    StagingUnreadable,
    StorageUnreachable,
)
from laion.s3 import S3Options, split_uri
from laion.shards import ShardParquet, StagedShard
from laion.vectors import clip_vectors
from tests.embedded_server import EmbeddedServer
from tests.s3 import S3Server
from tests.shard_files import ROWS, unit_vectors, write_arrays
from tests.unit.clickhouse.shard_steps import IDENTITY, TABLE, make_tables
from tests.unit.mirrors import unused_url

SHARD = 7
ODD_CAPTIONS = [b"\"q\" 's'", b"back\\slash \\N", b"a\nb\r\n\tc", b"nul\0", b"caf\xe9 \xff", b""]
EXTREMES = [np.nan, np.inf, -np.inf, 6e-8, -6e-8, 65504, 0, -0.0]
BAD_ROWS = 3


@pytest.fixture
def access(s3_server: S3Server) -> S3Access:
    return S3Access(f"s3://{s3_server.make_bucket()}/staging", s3_server.options)


@pytest.fixture
def parquet(shard_directory: Path, tmp_path: Path) -> ShardParquet:
    return write_parquet(shard_directory, tmp_path, "<f2")


def write_parquet(source: Path, directory: Path, dtype: str) -> ShardParquet:
    """Convert a shard with odd captions and, in its first rows, values that are no length."""
    vectors = unit_vectors(ROWS).astype(dtype)
    vectors[:BAD_ROWS, : len(EXTREMES)] = EXTREMES
    captions = pa.array(ODD_CAPTIONS * (ROWS // len(ODD_CAPTIONS)))
    text = pa.Array.from_buffers(pa.string(), ROWS, captions.buffers())
    files = write_arrays(source, vectors, vectors[::-1], pa.table({"caption": text}), SHARD)
    return convert_shard(files, directory / "7.parquet", Rules(max_bad_vectors=2 * BAD_ROWS))


def upload(s3_server: S3Server, access: S3Access, parquet: ShardParquet) -> ShardParquet:
    uri = f"{access.root}/little/00007-aaaa0001/7.parquet"
    bucket, key = split_uri(uri)
    s3_server.client().put_object(Bucket=bucket, Key=key, Body=Path(parquet.path).read_bytes())
    return replace(parquet, path=uri)


def contents(client: Client, staged: StagedShard) -> ShardContents:
    parquet = staged.parquet
    return read_contents(client, staged.staging_table, parquet.spec.shard, parquet.dimensions)


@pytest.mark.parametrize("element_type", ["Float32", "BFloat16"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_the_same_rows_arrive_as_by_way_of_a_worker(
    client: Client,
    s3_server: S3Server,
    access: S3Access,
    shard_directory: Path,
    tmp_path: Path,
    dtype: str,
    element_type: str,
) -> None:
    make_tables(client, "ledger_only")
    ensure_base_table(client, TABLE, IDENTITY, element_type=element_type)
    parquet = write_parquet(shard_directory, tmp_path, dtype)
    sent = contents(client, load_shard(client, parquet))

    pulled = pull_shard(client, upload(s3_server, access, parquet), access, try_number=2)

    assert pulled.rows_written == ROWS
    assert contents(client, pulled) == sent


def test_credentials_are_in_no_log_of_the_server(
    client: Client, s3_server: S3Server, access: S3Access, parquet: ShardParquet
) -> None:
    make_tables(client)

    pull_shard(client, upload(s3_server, access, parquet), access)

    client.command("SYSTEM FLUSH LOGS")
    logged = client.query(
        "SELECT query, toString(Settings) FROM system.query_log "
        "WHERE has(tables, currentDatabase() || '.little_staging_7_aaaa0001')"
    ).result_rows
    assert [row for row in logged if "[HIDDEN]" in row[0]]
    assert s3_server.secret not in str(logged)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        (S3Options("k", "s"), "{url:String}, {key:String}, {secret:String}, 'Parquet'"),
        (
            S3Options("k", "s", "t"),
            "{url:String}, {key:String}, {secret:String}, {token:String}, 'Parquet'",
        ),
        (S3Options(region="nobody"), "{url:String}, NOSIGN, 'Parquet'"),
    ],
)
def test_credentials_are_in_no_statement(
    options: S3Options, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    assert S3Access("s3://bucket/x", options).place("s3://bucket/x/1.parquet")[0] == place


def test_a_file_that_is_gone_asks_for_the_download(
    client: Client, access: S3Access, parquet: ShardParquet
) -> None:
    make_tables(client)

    with pytest.raises(StagingGone, match="clear this task"):
        pull_shard(client, replace(parquet, path=f"{access.root}/7.parquet"), access)


def test_wrong_credentials_are_said_and_not_shown(
    client: Client, s3_server: S3Server, access: S3Access, parquet: ShardParquet
) -> None:
    make_tables(client)
    uploaded = upload(s3_server, access, parquet)
    wrong = replace(access, options=replace(access.options, secret="not-the-secret"))

    with pytest.raises(StagingUnreadable, match="check the Airflow connection") as caught:
        pull_shard(client, uploaded, wrong)
    assert "not-the-secret" not in str(caught.value)


def test_an_s3_that_does_not_answer_may_do_so_later(
    client: Client, access: S3Access, parquet: ShardParquet
) -> None:
    make_tables(client)
    silent = replace(access, options=replace(access.options, endpoint_url=unused_url()))

    with pytest.raises(StorageUnreachable, match="can the server reach S3"):
        pull_shard(client, replace(parquet, path=f"{access.root}/7.parquet"), silent)


def test_a_file_of_another_kind_is_refused(
    client: Client, s3_server: S3Server, access: S3Access, parquet: ShardParquet
) -> None:
    make_tables(client)
    uploaded = upload(s3_server, access, parquet)
    wider = replace(uploaded, spec=replace(uploaded.spec, vectors=list(clip_vectors(17))))

    with pytest.raises(BadMetadata, match="no vector of 17 floats"):
        pull_shard(client, wider, access)


class TestGrants:
    """With a server of their own, whose user has the loader's grants and these."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> EmbeddedServer:
        return EmbeddedServer(tmp_path / "clickhouse")

    def test_a_named_collection_stands_for_credentials(
        self, server: EmbeddedServer, s3_server: S3Server, access: S3Access, parquet: ShardParquet
    ) -> None:
        uploaded = upload(s3_server, access, parquet)
        by_name = S3Access(access.root, S3Options(), "laion_staging")
        more = ("S3 ON *.*", "NAMED COLLECTION ON *", "CREATE NAMED COLLECTION ON *")

        with granted(server, *more) as client:
            client.command(
                "CREATE NAMED COLLECTION laion_staging AS "
                f"url = {quote_string(s3_server.options.object_url(access.root) + '/')}, "
                f"access_key_id = {quote_string(s3_server.key)}, "
                f"secret_access_key = {quote_string(s3_server.secret)}"
            )
            make_tables(client)
            check_access(client, uploaded.path, by_name)
            assert pull_shard(client, uploaded, by_name).rows_written == ROWS

    def test_one_more_is_needed(self, server: EmbeddedServer, access: S3Access) -> None:
        with (
            granted(server) as client,
            pytest.raises(ClickHouseAuthFailed, match=r"lacks a grant to read s3://.*S3"),
        ):
            check_access(client, f"{access.root}/7.parquet", access)


@contextmanager
def granted(server: EmbeddedServer, *more: str) -> Iterator[Client]:
    with server, server.client() as admin:
        admin.command("CREATE DATABASE laion")
    loader = [f"{what} ON {target}" for what, target in read_grants("loader", "laion")]
    server.restrict([*loader, *more])
    with server, server.client(database="laion", autogenerate_session_id=False) as client:
        yield client
