"""From a Parquet file on S3 into the staging table: ClickHouse reads it by itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

from clickhouse_connect.driver.httpclient import HttpClient
from clickhouse_connect.driver.summary import QuerySummary
from urllib3 import Timeout

from laion.clickhouse.client import DRIVER_ERRORS, Client, typed_errors
from laion.clickhouse.identifiers import quote_identifier
from laion.clickhouse.shards.load import insert_settings, make_staging, rounded_vectors
from laion.clickhouse.statements import statement
from laion.errors import (
    BadMetadata,
    ClickHouseError,
    StagingGone,
    StagingUnreadable,
    StorageUnreachable,
)
from laion.s3 import S3Options
from laion.shards import ShardParquet, StagedShard

log = logging.getLogger(__name__)

READ_SETTINGS = {
    "schema_inference_make_columns_nullable": 0,
    # A few seconds, then the task is tried again. The server's own 500 tries outlast the client.
    "s3_retry_attempts": 7,
}

LONGEST_S = 3600
"""A real shard takes a minute."""

WIDENED = (
    "if(bitAnd(u, 31744) = 31744, reinterpretAsFloat32(toUInt32("
    "bitAnd(u, 32768) * 65536 + bitAnd(u, 32767) * 8192 + 1879048192)), "
    "toFloat32(reinterpretAsFloat32(toUInt32(bitAnd(u, 32768) * 65536 + bitAnd(u, 32767) * 8192)) "
    "* exp2(112)))"
)
"""The float32 of the bits `u` of a float16. ClickHouse has no such type: the bits go where float32
has them, which leaves the exponent too small by 112; infinity and NaN have one of their own."""

ROUNDED = (
    "if(isNaN(x), toFloat32(nan), reinterpretAsFloat32(toUInt32(bitAnd(reinterpretAsUInt32(x) "
    "+ 32767 + bitAnd(bitShiftRight(reinterpretAsUInt32(x), 16), 1), 4294901760))))"
)
"""The bfloat16 nearest to a float32 `x`, ties to even, as `load.round_to_bfloat16` has it."""


@dataclass(frozen=True)
class S3Access:
    """How ClickHouse reads the staging area `root`, `s3://bucket/prefix`.

    By a named collection of the server, whose `url` is the root as the server sees it; else by
    the credentials in `options`, which are sent as bound parameters in the body of the request:
    they are in no statement, and the server hides them in its logs and errors.
    """

    root: str
    options: S3Options
    collection: str = ""

    def place(self, uri: str) -> tuple[str, dict[str, str]]:
        """Return the arguments of `s3()` for an object, and the parameters in them."""
        if self.collection:
            name = uri.removeprefix(self.root).lstrip("/")
            given = "filename = {filename:String}, format = 'Parquet'"
            return f"{quote_identifier(self.collection)}, {given}", {"filename": name}
        url = {"url": self.options.object_url(uri)}
        found = self.options.credentials()
        if found is None:
            return "{url:String}, NOSIGN, 'Parquet'", url
        known = {"key": found.access_key, "secret": found.secret_key, "token": found.token}
        known = {name: value for name, value in known.items() if value}
        given = ", ".join(f"{{{name}:String}}" for name in ("url", *known))
        return f"{given}, 'Parquet'", url | known


def pull_shard(
    client: Client, shard: ShardParquet, access: S3Access, *, try_number: int = 1
) -> StagedShard:
    """Let ClickHouse fill the staging table of an attempt from its Parquet file on S3, anew.

    No byte of the file passes through this process. Raises StagingGone when there is no such
    file, StagingUnreadable when ClickHouse may not read it, StorageUnreachable, ClickHouseError.
    """
    spec = shard.spec
    staging = make_staging(client, shard)
    rounded = rounded_vectors(client, staging)
    place, parameters = access.place(shard.path)
    settings = {**READ_SETTINGS, **insert_settings(shard, try_number)}
    with _patience(client), _hidden_parameters(client), _s3_errors(shard.path):
        with typed_errors(f"read {shard.path}"):
            described = client.query(
                f"DESCRIBE TABLE s3({place})", parameters=parameters, settings=READ_SETTINGS
            )
        values = {
            name: _value(name, kind, shard, name in rounded)
            for name, kind, *_ in described.result_rows
        }
        values["shard"] = "{shard:UInt16}"
        insert = statement(
            "pull_shard",
            staging=staging,
            literals={
                "columns": ", ".join(map(quote_identifier, values)),
                "values": ", ".join(values.values()),
                "place": place,
            },
        )
        try:
            with typed_errors(f"load {spec.label} into {staging}"):
                summary = client.command(
                    insert, parameters={**parameters, "shard": spec.shard}, settings=settings
                )
        except BaseException:
            _end_query(client, str(settings["query_id"]))
            raise
    rows = cast(QuerySummary, summary).written_rows
    log.info("%s: ClickHouse has read %d rows into %s", spec.label, rows, staging)
    return StagedShard(parquet=shard, staging_table=staging, rows_written=rows)


def check_access(client: Client, uri: str, access: S3Access) -> None:
    """Let ClickHouse read a Parquet file. Raises as `pull_shard` does."""
    place, parameters = access.place(uri)
    with _hidden_parameters(client), _s3_errors(uri), typed_errors(f"read {uri}"):
        client.query(
            f"SELECT count() FROM s3({place})", parameters=parameters, settings=READ_SETTINGS
        )


def _value(name: str, kind: str, shard: ShardParquet, is_rounded: bool) -> str:
    """Return the expression that makes a column of the table of one of the file."""
    column = quote_identifier(name)
    dimension = shard.dimensions.get(name)
    if dimension is None:
        return column
    width = re.fullmatch(r"FixedString\((\d+)\)", kind)
    element_bytes = int(width[1]) / dimension if width else 0
    if element_bytes == 2:
        # Looked up in a table of all 65,536, for a fraction of the CPU of computing each.
        every = f"arrayMap(u -> {WIDENED}, arrayMap(i -> toUInt16(i), range(65536)))"
        every = f"arrayMap(x -> {ROUNDED}, {every})" if is_rounded else every
        bits = f"reinterpret({column}, 'Array(UInt16)')"
        return f"arrayMap(u -> arrayElement((SELECT {every}), u + 1), {bits})"
    if element_bytes == 4:
        values = f"reinterpret({column}, 'Array(Float32)')"
        return f"arrayMap(x -> {ROUNDED}, {values})" if is_rounded else values
    raise BadMetadata(f"{shard.path}: {name} is {kind}, which is no vector of {dimension} floats")


@contextmanager
def _patience(client: Client) -> Iterator[None]:
    """Wait longer than usual for an answer: nothing is sent meanwhile."""
    http = cast(HttpClient, client)
    before, http.timeout = (
        http.timeout,
        Timeout(connect=http.timeout.connect_timeout, read=LONGEST_S),
    )
    try:
        yield
    finally:
        http.timeout = before


@contextmanager
def _hidden_parameters(client: Client) -> Iterator[None]:
    """Send parameters in the body: addresses are logged by proxies and by servers."""
    http = cast(HttpClient, client)
    before, http.form_encode_query_params = http.form_encode_query_params, True
    try:
        yield
    finally:
        http.form_encode_query_params = before


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    """Turn what S3 has answered to ClickHouse into what is to be done."""
    try:
        yield
    except ClickHouseError as error:
        told = re.search(r"HTTP response code: (\d+)", str(error))
        if told is None:
            raise
        status = int(told[1])
        if status == 404:
            raise StagingGone(
                f"{uri} is not there any more, or ClickHouse looks for it elsewhere; clear this "
                f"task to fetch and convert it again. {error}"
            ) from error
        if status in (400, 401, 403):
            raise StagingUnreadable(
                f"S3 does not let ClickHouse read {uri}; check the Airflow connection of S3, or "
                f"the named collection. {error}"
            ) from error
        raise StorageUnreachable(
            f"ClickHouse cannot read {uri} just now; can the server reach S3? {error}"
        ) from error


def _end_query(client: Client, query_id: str) -> None:
    """End an INSERT that may go on in the server although nobody waits for it."""
    with suppress(*DRIVER_ERRORS):
        client.command(
            "KILL QUERY WHERE query_id = {query_id:String} ASYNC",
            parameters={"query_id": query_id},
        )
