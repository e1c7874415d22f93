"""What preflight says of the search table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clickhouse_connect.driver.client import Client

from laion.clickhouse.search_table.plan import IndexOptions
from laion.preflight import Run, check_run
from laion.vectors import clip_vectors
from tests.shard_files import write_little_shard
from tests.unit.clickhouse.shard_steps import build_search, make_tables, publish_files
from tests.unit.preflight.reports import OPTIONS, line, verdicts


def test_what_cannot_be_built_is_a_problem_though_the_rows_are_unknown(
    run: Run, client: Client
) -> None:
    impossible = IndexOptions(quantization="b1", metric="L2Distance")

    report = check_run(replace(run, specs=[], index=impossible), client, OPTIONS)

    assert verdicts(report)["index memory"] == "problem"
    assert "b1 for cosineDistance only" in line(report, "index memory").note


def test_how_a_kind_was_chosen_is_told(run: Run, client: Client) -> None:
    auto = IndexOptions(kind="auto", quantization="auto")

    chosen = line(check_run(replace(run, index=auto), client, OPTIONS), "index memory")

    assert chosen.needed == "exact: none; every row is compared"
    for kind in ("exact: ", "quantized: ", "hnsw: "):
        assert kind in chosen.note


def test_narrow_tables_need_less_disk_than_rows(run: Run, client: Client) -> None:
    large = [replace(spec, rows=1_000_000) for spec in run.specs]
    asked = replace(run, specs=large, vectors=clip_vectors(512))

    needed = {
        kind: float(
            line(
                check_run(
                    replace(asked, index=IndexOptions(kind=kind, quantization="auto")),
                    client,
                    OPTIONS,
                ),
                "ClickHouse disk",
            ).needed.split()[0]
        )
        for kind in ("exact", "quantized", "hnsw")
    }

    assert needed["exact"] < needed["quantized"] < needed["hnsw"]


def test_an_index_that_the_server_cannot_hold_is_a_problem(run: Run, client: Client) -> None:
    large = [replace(spec, rows=100_000_000) for spec in run.specs]
    asked = replace(run, specs=large, vectors=clip_vectors(512), server_memory_bytes=8 * 10**9)

    report = check_run(asked, client, OPTIONS)

    assert verdicts(report)["index memory"] == "problem"
    assert verdicts(check_run(replace(asked, index=None), client, OPTIONS))["server"] == "ok"


def test_the_kind_in_use_is_kept(run: Run, client: Client, tmp_path: Path) -> None:
    write_little_shard(tmp_path, 0)
    make_tables(client)
    publish_files(client, tmp_path, 0, tmp_path)
    build_search(client, IndexOptions(kind="quantized", quantization="auto"))
    auto = IndexOptions(kind="auto", quantization="auto")

    chosen = line(check_run(replace(run, index=auto), client, OPTIONS), "index memory")

    assert "index_kind auto is quantized, which is in use" in chosen.note
