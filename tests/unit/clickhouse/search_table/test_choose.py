"""Which kind `auto` is, on servers of several sizes, and that everything can be said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.backfill import BackfillRequest, ingest_conf, plan_backfill
from laion.clickhouse.ledger import Ledger, TaskOrigin
from laion.clickhouse.search_table.choose import choose_kind
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.recheck import recheck_recall
from laion.clickhouse.search_table.search import Target, search
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexTooLarge
from laion.monitor import check_index
from laion.vectors import clip_dimensions
from laion.web.status import read_search_table
from tests.shard_files import DIMENSION, read_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    ORIGIN,
    TABLE,
    build_search,
    make_tables,
    publish_files,
)

GB = 10**9
SERVER = ServerFacts("26.9.2.1", 64 * GB, None, 16, "enable_quantized_codec", 4000 * GB)
VECTORS = clip_dimensions(512)
AUTO = IndexOptions(kind="auto", quantization="auto", min_bucket_rows=1, buckets=2)


def chosen(rows: int, server: ServerFacts = SERVER, kept: str = "", **asked: str) -> str:
    options = IndexOptions(**{"kind": "auto", "quantization": "auto", **asked})
    return choose_kind(rows, VECTORS, options, server, kept).options.kind


@pytest.mark.parametrize(
    ("rows", "server", "kind"),
    [
        (12_000, SERVER, "exact"),
        (300_000, SERVER, "quantized"),
        (5_000_000, SERVER, "hnsw"),
        # The graphs do not fit any more.
        (407_314_954, SERVER, "quantized"),
        (407_314_954, replace(SERVER, memory_bytes=2000 * GB), "hnsw"),
        # It would take weeks.
        (407_314_954, replace(SERVER, memory_bytes=2000 * GB, threads=2), "quantized"),
        (300_000, replace(SERVER, codec_setting=None), "hnsw"),
        (5_000_000, replace(SERVER, free_bytes=5 * GB), "exact"),
        (5_000_000, replace(SERVER, free_bytes=None), "hnsw"),
    ],
)
def test_the_cheapest_to_build_that_is_quick_enough(
    rows: int, server: ServerFacts, kind: str
) -> None:
    assert chosen(rows, server) == kind


def test_the_kind_in_use_stays_while_it_is_quick_enough() -> None:
    assert chosen(200_000) == "quantized"
    assert chosen(200_000, kept="exact") == "exact"
    assert chosen(300_000, kept="exact") == "quantized"
    assert chosen(200_000, kept="hnsw") == "hnsw"


def test_a_kind_that_has_to_be_asked_for_is_kept_and_never_chosen() -> None:
    assert chosen(407_314_954) == "quantized"
    assert chosen(407_314_954, kept="ivf") == "ivf"


def test_what_is_on_the_disk_already_needs_no_more_of_it() -> None:
    tight = replace(SERVER, free_bytes=900 * GB)

    assert chosen(407_314_954, tight) == "exact"
    assert chosen(407_314_954, tight, kept="quantized") == "quantized"


def test_rows_that_are_copied_count() -> None:
    """Graphs of 52 GB would fit beside 100 GB, but not with the rows."""
    assert chosen(20_000_000, replace(SERVER, memory_bytes=200 * GB)) == "hnsw"
    tight = replace(SERVER, memory_bytes=200 * GB, free_bytes=100 * GB)
    assert chosen(20_000_000, tight) == "quantized"
    # They are no part of the index that is planned: preflight counts them by the table's type.
    plan = choose_kind(20_000_000, VECTORS, AUTO, replace(SERVER, memory_bytes=200 * GB))
    assert plan.estimate.disk_bytes == plan.estimate.memory_bytes


def test_a_metric_or_quantization_leaves_those_that_have_it() -> None:
    assert chosen(5_000_000, metric="L2Distance") == "hnsw"
    assert chosen(12_000, quantization="rabitq") == "quantized"
    assert chosen(12_000, quantization="bf16") == "hnsw"


def test_the_figures_of_all_kinds_are_told() -> None:
    choice = choose_kind(407_314_954, VECTORS, AUTO, SERVER).choice

    assert choice.startswith("index_kind auto is quantized, which has the quickest searches")
    assert "exact: 305 CPU seconds a search" in choice
    assert "hnsw: the vector indexes of 407,314,954 rows" in choice
    assert "Load fewer shards" not in choice


def test_what_no_kind_has_is_refused() -> None:
    with pytest.raises(BadRequest, match="'pq' is none of auto, f32"):
        choose_kind(1, VECTORS, replace(AUTO, quantization="pq"), SERVER)


def test_a_server_that_can_have_none_of_those_asked_for_is_told_all_reasons() -> None:
    tight = replace(SERVER, free_bytes=GB)

    with pytest.raises(IndexTooLarge, match=r"no kind .* suits .*the server has 1\.0 GB of disk"):
        choose_kind(50_000_000, VECTORS, replace(AUTO, quantization="int8"), tight)


@pytest.fixture
def base(client: Client, tmp_path: Path) -> Client:
    make_tables(client)
    for shard in range(2):
        write_little_shard(tmp_path, shard, 300)
        publish_files(client, tmp_path, shard, tmp_path)
    return client


class TestExact:
    def test_a_small_table_is_searched_as_it_is(self, base: Client, tmp_path: Path) -> None:
        plan = build_search(base, AUTO, target=1.0)

        vector = read_vectors(tmp_path, "image_embedding", 1)[7]
        found = search(base, TABLE, Target.vector(vector.tolist()), limit=3)
        assert plan.options.kind == "exact"
        assert found.hits[0].id == 100_000_007
        shown = read_search_table(base, TABLE)
        assert shown is not None
        assert shown.chosen.startswith("index_kind auto is exact")
        assert (shown.rows, shown.bytes) == (600, 0)

    def test_it_is_never_stale(self, base: Client, tmp_path: Path) -> None:
        build_search(base, AUTO)
        write_little_shard(tmp_path, 2, 300)
        publish_files(base, tmp_path, 2, tmp_path)

        vector = read_vectors(tmp_path, "image_embedding", 2)[9].tolist()

        assert search(base, TABLE, Target.vector(vector), limit=1).hits[0].id == 200_000_009
        assert list(check_index(base, TABLE)) == []
        assert recheck_recall(base, TABLE, queries=10, budget=10**9) == []
        assert plan_backfill(base, BackfillRequest(TABLE, which="stale")) == []
        shown = read_search_table(base, TABLE)
        assert shown is not None
        assert (shown.stale, shown.rows) == ([], 900)

    def test_rows_without_a_direction_are_not_found(self, base: Client) -> None:
        base.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            f"SELECT 900, 0, arrayWithConstant({DIMENSION}, 0), arrayWithConstant({DIMENSION}, 1)"
        )
        build_search(base, AUTO)

        found = search(base, TABLE, Target.vector([1.0] * DIMENSION), limit=1000)

        assert len(found.hits) == 600

    def test_rows_without_a_direction_do_not_have_it_rejected(self, base: Client) -> None:
        base.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            f"SELECT 900 + number, 0, arrayWithConstant({DIMENSION}, 1), "
            f"arrayWithConstant({DIMENSION}, 0) FROM numbers(300)"
        )

        assert build_search(base, AUTO, target=1.0).options.kind == "exact"

    def test_by_l2_a_vector_without_a_direction_is_not_found_either(self, base: Client) -> None:
        base.command(
            f"INSERT INTO {TABLE} (id, shard, image_embedding, text_embedding) "
            f"SELECT 900, 0, arrayWithConstant({DIMENSION}, 0), arrayWithConstant({DIMENSION}, 1)"
        )
        build_search(base, replace(AUTO, kind="exact", metric="L2Distance"))

        found = search(base, TABLE, Target.vector([0.01] * DIMENSION), limit=1000)

        assert len(found.hits) == 600
        assert 900 not in {hit.id for hit in found.hits}

    @pytest.mark.parametrize("other", [name for name in OFFERS if name != "exact"])
    def test_a_table_outgrows_it_and_shrinks_to_it(self, base: Client, other: str) -> None:
        for run, options in enumerate(
            (AUTO, replace(AUTO, kind=other), replace(AUTO, kind="exact"))
        ):
            plan = build_search(base, options, origin=TaskOrigin("laion_ingest", str(run)))

            assert read_in_use(base, TABLE) == plan
            assert len(search(base, TABLE, Target.vector([1.0] * DIMENSION)).hits) == 10
        left = base.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            f"AND startsWith(name, '{TABLE}_') AND name NOT LIKE '%staging%' ORDER BY name"
        ).result_rows
        assert [row[0] for row in left] == [f"{TABLE}_near", f"{TABLE}_near_text"]


def test_a_backfill_of_a_table_that_auto_chose_for_lets_it_choose_again(
    base: Client, tmp_path: Path
) -> None:
    params = {"index_kind": "hnsw", "index_quantization": "bf16"}
    Ledger(base).record_run(
        ORIGIN, table=TABLE, dataset="little", source="", shards="0-1", params=params
    )
    plan = build_search(base, AUTO)
    request = BackfillRequest(TABLE, shards="0")

    conf = ingest_conf(base, request, plan_backfill(base, request))

    assert conf is not None
    assert plan.chosen
    assert (conf["index_kind"], conf["index_quantization"]) == ("auto", "auto")


def test_a_backfill_after_a_run_of_an_earlier_release_keeps_the_kind(base: Client) -> None:
    Ledger(base).record_run(
        ORIGIN, table=TABLE, dataset="little", source="", shards="0-1", params={}
    )
    build_search(base, replace(AUTO, kind="hnsw"))
    request = BackfillRequest(TABLE, shards="0")

    conf = ingest_conf(base, request, plan_backfill(base, request))

    assert conf is not None
    assert conf["index_kind"] == "hnsw"
