"""What a search table of some shards says of one of the whole dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table.calibration import Figure, calibrate
from laion.clickhouse.search_table.lease import Builds
from laion.clickhouse.search_table.plan import BuildPlan, IndexOptions
from laion.clickhouse.server import ServerFacts
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

ROWS = 400
ALL = 40_000_000
SERVER = ServerFacts("26.9.2.1", 64 * 10**9, None, 16, "enable_quantized_codec", 10**12)

Built = tuple[Builds, BuildPlan]


@pytest.fixture(scope="module", params=["ivf", "quantized", "hnsw"])
def built(
    request: pytest.FixtureRequest,
    fresh_database: Callable[[], AbstractContextManager[Client]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    directory = tmp_path_factory.mktemp("source")
    with fresh_database() as client:
        make_tables(client)
        write_little_shard(directory, 0, ROWS)
        publish_files(client, directory, 0, directory)
        options = IndexOptions(kind=request.param, quantization="auto", min_bucket_rows=1)
        yield Builds(client, TABLE, ORIGIN), build_search(client, options)


def test_it_has_what_was_planned_and_measured_and_a_verdict(built: Built) -> None:
    text = calibrate(*built, ALL, SERVER)

    assert text is not None
    lines = text.splitlines()
    assert lines[0].startswith("Search table of 400 rows, of 40,000,000: ")
    assert lines[1] == "ClickHouse 26.9.2.1, 16 threads, memory 64.0 GB"
    assert any("image_embedding" in line and "near queries: recall@10" in line for line in lines)
    disk = next(line for line in lines if line.startswith("disk, GB")).split()
    held = sum(bucket.index_bytes for bucket in built[0].buckets(built[1].build_id).values())
    assert float(disk[3]) == pytest.approx(held / 1e9, rel=0.01)
    assert lines[-1].startswith(("GO: ", "UNCLEAR, load more shards first: "))


def test_a_disk_that_is_too_small_is_a_reason_to_stop(built: Built) -> None:
    text = calibrate(*built, ALL, replace(SERVER, free_bytes=10**6))

    assert text is not None
    assert text.splitlines()[-1].startswith("STOP: ")
    assert "disk, GB: " in text.splitlines()[-1]


def test_a_server_that_is_far_too_small_is_a_reason_to_stop(built: Built) -> None:
    text = calibrate(*built, 10**12, replace(SERVER, memory_bytes=10**9))

    assert text is not None
    assert text.splitlines()[-1].startswith("STOP: ")


@pytest.mark.parametrize("total", [None, ROWS, ROWS + 10])
def test_where_nearly_all_is_loaded_there_is_nothing_to_foresee(
    built: Built, total: int | None
) -> None:
    assert calibrate(*built, total, SERVER) is None


def test_a_plan_that_was_wrong_is_corrected_by_a_fixed_cost_or_a_factor() -> None:
    figure = Figure("disk, GB", planned=2.0, measured=3.0, planned_for_all=800.0)

    assert figure.for_all == (801.0, 1200.0)
