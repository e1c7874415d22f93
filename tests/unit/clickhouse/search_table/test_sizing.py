from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table import sizing
from laion.clickhouse.search_table.kinds import OFFERS
from laion.clickhouse.search_table.kinds.hnsw.sizing import estimate_graphs, resolve
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.scaling import scaling_table
from laion.clickhouse.search_table.sizing import format_plan, plan_index
from laion.clickhouse.server import ServerFacts
from laion.errors import BadRequest, IndexTooLarge
from laion.vectors import clip_dimensions
from tests.shard_files import unit_vectors

LAION_ROWS = 407_314_954
VECTORS = clip_dimensions(512)
GB = 1_000_000_000
SERVER = ServerFacts("26.9.2.1", 64 * GB, 5 * GB, 16)


def build_index(client: Client, rows: int, dimension: int, options: IndexOptions) -> int:
    """Build one index over random vectors and return its bytes as ClickHouse counts them."""
    client.command(
        f"CREATE TABLE t (id Int64, v Array(Float32), INDEX i v TYPE vector_similarity('hnsw', "
        f"'cosineDistance', {dimension}, '{options.quantization}', {options.parameters['m']}, 64) "
        "GRANULARITY 100000000) ENGINE = MergeTree ORDER BY id"
    )
    vectors = pa.FixedSizeListArray.from_arrays(unit_vectors(rows, dimension).ravel(), dimension)
    client.insert_arrow("t", pa.table({"id": np.arange(rows), "v": vectors}))
    return int(
        client.command(
            "SELECT sum(secondary_indices_uncompressed_bytes) FROM system.parts "
            "WHERE active AND database = currentDatabase()"
        )
    )


class TestEstimate:
    @pytest.mark.parametrize("quantization", OFFERS["hnsw"].quantizations)
    @pytest.mark.parametrize(("dimension", "m"), [(512, 0), (64, 8), (96, 64)])
    def test_memory_is_within_15_percent_of_the_real_index(
        self, client: Client, quantization: str, dimension: int, m: int
    ) -> None:
        options = resolve(IndexOptions(parameters={"m": m}), quantization)

        actual = build_index(client, 2000, dimension, options)

        estimate = estimate_graphs(2000, [dimension], options)
        assert estimate.memory_bytes == pytest.approx(actual, rel=0.15)

    def test_vectors_of_other_dimensions_need_what_each_needs(self) -> None:
        alone = [estimate_graphs(1000, [size], IndexOptions()) for size in (512, 768)]

        both = estimate_graphs(1000, [512, 768], IndexOptions())

        assert both.memory_bytes == sum(one.memory_bytes for one in alone)

    def test_two_vectors_need_twice_as_much(self) -> None:
        one, two = (estimate_graphs(1000, [512] * n, IndexOptions()) for n in (1, 2))

        assert two.memory_bytes == 2 * one.memory_bytes
        assert two.build_cpu_s == 2 * one.build_cpu_s


class TestPlan:
    def test_auto_takes_the_finest_that_fits(self) -> None:
        options = IndexOptions(quantization="auto")
        chosen = {
            gb: plan_index(
                LAION_ROWS, VECTORS, options, replace(SERVER, memory_bytes=gb * GB)
            ).options.quantization
            for gb in (256, 1024, 2048)
        }

        assert chosen == {256: "b1", 1024: "i8", 2048: "bf16"}

    def test_it_says_what_it_chose_and_why(self) -> None:
        plan = plan_index(LAION_ROWS, VECTORS, IndexOptions(quantization="auto"), _server(1024))

        text = format_plan(plan, LAION_ROWS, 16)
        assert "Chose i8" in text
        assert "bf16 with M=32 needs 1,061 GB" in text

    def test_nothing_fits_is_refused_with_what_would(self) -> None:
        with pytest.raises(IndexTooLarge, match=r"At most 104,\d{3},\d{3} rows fit with b1"):
            plan_index(LAION_ROWS, VECTORS, IndexOptions(quantization="auto"), SERVER)

    def test_a_quantization_asked_for_is_not_changed(self) -> None:
        with pytest.raises(IndexTooLarge, match="Choose index_quantization auto"):
            plan_index(LAION_ROWS, VECTORS, IndexOptions(quantization="bf16"), _server(256))

    def test_unknown_memory_is_said_and_takes_the_finest(self) -> None:
        server = replace(SERVER, memory_bytes=None)

        plan = plan_index(LAION_ROWS, VECTORS, IndexOptions(quantization="auto"), server)

        assert plan.options.quantization == "bf16"
        assert "unknown" in plan.notes[0]
        assert "LAION_CLICKHOUSE_MEMORY" in plan.notes[0]

    def test_a_cache_smaller_than_the_index_is_warned_of(self) -> None:
        plan = plan_index(10_000_000, VECTORS, IndexOptions(), SERVER)

        assert any("vector_similarity_index_cache_size is 5.0 GB" in n for n in plan.notes)

    def test_an_index_that_fits_everywhere_needs_no_note(self) -> None:
        assert plan_index(1000, VECTORS, IndexOptions(), SERVER).notes == ()

    def test_bits_get_fewer_connections_than_other_quantizations(self) -> None:
        chosen = [resolve(IndexOptions(), q).parameters["m"] for q in ("bf16", "b1")]
        assert chosen == [32, 16]
        assert resolve(IndexOptions(parameters={"m": 8}), "b1").parameters["m"] == 8

    def test_bits_are_only_for_the_cosine(self) -> None:
        with pytest.raises(BadRequest, match="b1 for cosineDistance only"):
            plan_index(1, VECTORS, IndexOptions(metric="L2Distance", quantization="b1"), SERVER)
        options = IndexOptions(metric="L2Distance", quantization="auto")
        with pytest.raises(IndexTooLarge):
            plan_index(LAION_ROWS, VECTORS, options, _server(256))


class TestCommand:
    def test_it_prints_a_plan_or_a_refusal_for_each_size(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--rows", str(LAION_ROWS), "--kind", "hnsw", "--memory-gb", "64", "1000"]
        monkeypatch.setattr("sys.argv", ["sizing", *arguments])

        assert sizing.main() == 0

        small, large = capsys.readouterr().out.split("1000 GB:")
        assert "64 GB:\n  refused: " in small
        assert "Index HNSW, i8" in large


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"metric": "cosine"}, "index_metric"),
            ({"quantization": "i4"}, "index_quantization"),
            ({"kind": "tree"}, "index_kind"),
        ],
    )
    def test_an_unknown_option_is_refused_with_the_params_name(
        self, options: dict[str, str], name: str
    ) -> None:
        with pytest.raises(BadRequest, match=name):
            plan_index(1, VECTORS, IndexOptions(**options), SERVER)

    @pytest.mark.parametrize("gone", ["annoy", "Annoy", "usearch"])
    def test_an_index_that_clickhouse_no_longer_has_is_explained(self, gone: str) -> None:
        with pytest.raises(BadRequest, match=r"removed.*vector_similarity"):
            plan_index(1, VECTORS, IndexOptions(quantization=gone), SERVER)


def _server(gb: int) -> ServerFacts:
    return replace(SERVER, memory_bytes=gb * GB)


def test_the_table_of_the_docs_is_what_the_estimator_gives() -> None:
    text = (Path(__file__).parents[4] / "docs" / "scaling.md").read_text()
    begin, end = (
        "<!-- made by `python -m laion.clickhouse.search_table.scaling` -->\n",
        "\n<!-- end -->",
    )

    table = scaling_table(
        (10**7, 10**8, 407_314_954), (1, 4, 16), dimension=512, vectors=2, threads=16
    )

    assert text.partition(begin)[2].partition(end)[0] == table


def test_a_node_of_four_needs_a_quarter() -> None:
    sizes = {"dimension": 512, "vectors": 2, "threads": 16}

    def cells(nodes: int) -> list[float]:
        line = scaling_table([10**9], [nodes], **sizes).splitlines()[2].replace(",", "")
        table, _, *rest = line.strip("| ").split(" | ")[2:]
        return [float(table), *map(float, rest)]

    one, four = cells(1), cells(4)
    assert one[4] == four[4]  # All nodes fetch over one link.
    for position in (0, 1, 2, 3, 6):
        assert four[position] == pytest.approx(one[position] / 4, rel=0.01)
