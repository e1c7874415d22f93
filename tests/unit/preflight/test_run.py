"""What is asked before a run, and what makes it pointless."""

from __future__ import annotations

import secrets
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion import preflight
from laion.clickhouse import server as server_module
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.shards.pull import S3Access
from laion.datasets import load_profile
from laion.download import DownloadOptions
from laion.errors import PreflightFailed, SourceUnreachable
from laion.preflight import Line, Report, Run, check_run, target
from laion.shards import ShardSpec
from laion.storage import BucketArea, DirectoryArea
from laion.vectors import clip_vectors
from tests.embedded_server import EmbeddedServer
from tests.s3 import S3Server
from tests.shard_files import DIMENSION, ROWS, path_of, spec_of, write_little_shard
from tests.unit.clickhouse.shard_steps import make_tables
from tests.unit.mirrors import Mirror, unused_url

OPTIONS = DownloadOptions(connections=4, first_wait_s=0)
TB = 10**12

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def run(mirror: Mirror, shard_directory: Path, tmp_path: Path) -> Run:
    """Three good shards from a web server, and a search table."""
    for shard in range(3):
        write_little_shard(shard_directory, shard)
    return Run(
        profile=load_profile("clip_retrieval"),
        table="little",
        specs=[spec_of(mirror.url, shard, dimension=DIMENSION) for shard in range(3)],
        vectors=clip_vectors(DIMENSION),
        staging=DirectoryArea(tmp_path / "staging", capacity=2),
        index=IndexOptions(),
    )


def verdicts(report: Report) -> dict[str, str]:
    return {line.check: line.verdict for line in report.lines}


def line(report: Report, check: str) -> Line:
    return next(line for line in report.lines if line.check == check)


def test_a_run_that_can_succeed_has_no_problem(run: Run, client: Client) -> None:
    report = check_run(run, client, OPTIONS)

    report.check()
    assert set(verdicts(report).values()) <= {"ok", "warning"}
    assert line(report, "source").needed == "9 files of 3 shards"
    assert line(report, "rows").found == f"{3 * ROWS:,}"


def test_the_table_has_a_line_for_every_question(run: Run, client: Client) -> None:
    table = check_run(run, client, OPTIONS).as_table()

    for check in (
        "source",
        "rows",
        "to fetch",
        "staging disk",
        "server",
        "ClickHouse disk",
        "index memory",
        "grants",
    ):
        assert f"\n{check} " in table


def test_the_staging_area_needs_room_for_as_many_shards_as_are_in_flight(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(TB, TB - 10, 10))

    report = check_run(run, client, OPTIONS)

    assert line(report, "staging disk").needed.endswith("for 2 shards at once")
    with pytest.raises(PreflightFailed, match="LAION_MAX_SHARDS_IN_FLIGHT from 2"):
        report.check()


def test_a_staging_area_that_cannot_be_written_is_a_problem(
    run: Run, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    area = DirectoryArea(tmp_path / "file" / "staging", capacity=2)

    report = check_run(replace(run, staging=area), client, OPTIONS)

    with pytest.raises(PreflightFailed, match=r"cannot be written by user \d+.* LAION_STAGING_URI"):
        report.check()


def test_shards_that_the_source_lacks_are_a_warning_while_one_is_whole(
    run: Run, client: Client, shard_directory: Path
) -> None:
    (shard_directory / "metadata" / "metadata_1.parquet").unlink()
    (shard_directory / "metadata" / "metadata_2.parquet").unlink()

    report = check_run(run, client, OPTIONS)

    report.check()
    source = line(report, "source")
    assert source.verdict == "warning"
    assert source.found == "7 files, 1 whole shards"
    assert "Shards 1-2 are not whole" in source.note


def test_a_source_without_any_whole_shard_is_a_problem(
    run: Run, client: Client, shard_directory: Path
) -> None:
    for shard in range(3):
        (shard_directory / "metadata" / f"metadata_{shard}.parquet").unlink()

    with pytest.raises(PreflightFailed, match="Shards 0-2 are not whole"):
        check_run(run, client, OPTIONS).check()


def test_a_source_that_is_only_silent_may_be_asked_again(run: Run, client: Client) -> None:
    silent = replace(run, specs=[spec_of(unused_url())])

    with pytest.raises(SourceUnreachable):
        check_run(silent, client, OPTIONS).check()


def test_files_of_another_size_than_the_known_rows_ask_for_are_told(
    run: Run, client: Client
) -> None:
    specs = [replace(spec, rows=ROWS + 100 * (spec.shard == 1)) for spec in run.specs]

    report = check_run(replace(run, specs=specs), client, OPTIONS)

    assert line(report, "rows").verdict == "warning"
    assert "shards 1 " in line(report, "rows").note


class TestColumns:
    def test_a_metadata_file_with_all_columns_is_in_order(self, run: Run, client: Client) -> None:
        columns = line(check_run(run, client, OPTIONS), "columns")

        assert (columns.verdict, columns.found) == ("ok", "10 of 10 in shard 00000")
        assert "not loaded: image_path" in columns.note

    def test_other_names_and_absent_columns_are_a_warning_that_names_them(
        self, run: Run, client: Client, shard_directory: Path
    ) -> None:
        write_metadata(shard_directory, URL=["u"] * ROWS, TEXT=["t"] * ROWS)

        columns = line(check_run(run, client, OPTIONS), "columns")

        assert (columns.verdict, columns.found) == ("warning", "2 of 10 in shard 00000")
        assert "url from 'URL', caption from 'TEXT'" in columns.note
        assert "NSFW, similarity, LICENSE, width" in columns.note

    def test_a_required_column_that_is_missing_is_a_problem(
        self, run: Run, client: Client, shard_directory: Path
    ) -> None:
        for shard in range(3):
            write_metadata(shard_directory, shard, link=["u"] * ROWS)
        specs = [replace(spec, required=["url"]) for spec in run.specs]

        with pytest.raises(PreflightFailed, match=r"columns: needs url, .*its columns are link"):
            check_run(replace(run, specs=specs), client, OPTIONS).check()

    def test_one_file_that_cannot_be_used_is_a_warning_while_another_can(
        self, run: Run, client: Client, shard_directory: Path
    ) -> None:
        path_of(shard_directory, "metadata").write_bytes(b"PAR1 and nothing more PAR1")

        report = check_run(run, client, OPTIONS)

        report.check()
        columns = line(report, "columns")
        assert (columns.verdict, columns.found) == ("warning", "10 of 10 in shard 00001")
        assert "The metadata of shard 00000" in columns.note

    def test_files_of_which_none_can_be_used_are_a_problem(
        self, run: Run, client: Client, shard_directory: Path
    ) -> None:
        for shard in range(3):
            path_of(shard_directory, "metadata", shard).write_bytes(b"<html>maintenance</html>")

        with pytest.raises(PreflightFailed, match="is not a Parquet file"):
            check_run(run, client, OPTIONS).check()

    def test_a_mirror_with_a_web_page_in_its_place_is_passed_over(
        self, run: Run, client: Client, mirror: Mirror, shard_directory: Path
    ) -> None:
        (shard_directory / "page").mkdir()
        (shard_directory / "page" / "metadata.parquet").write_text("<html>maintenance</html>")
        urls = dict(run.specs[0].urls)
        urls["metadata"] = [f"{mirror.url}/page/metadata.parquet", *urls["metadata"]]

        report = check_run(replace(run, specs=[replace(run.specs[0], urls=urls)]), client, OPTIONS)

        assert line(report, "columns").verdict == "ok"

    def test_a_source_that_gives_no_part_of_a_large_file_leaves_them_unknown(
        self, run: Run, client: Client, shard_directory: Path
    ) -> None:
        write_metadata(shard_directory, caption=[secrets.token_hex(4000) for _ in range(ROWS)])

        report = check_run(run, client, OPTIONS)

        report.check()
        assert line(report, "columns").found == "unknown"
        assert "only as a whole" in line(report, "columns").note

    def test_another_mirror_is_asked_when_the_first_does_not_have_the_file(
        self, run: Run, client: Client, mirror: Mirror
    ) -> None:
        mirrors = {role: [f"{mirror.url}/no", *urls] for role, urls in run.specs[0].urls.items()}

        report = check_run(
            replace(run, specs=[replace(run.specs[0], urls=mirrors)]), client, OPTIONS
        )

        assert line(report, "columns").verdict == "ok"


def write_metadata(directory: Path, shard: int = 0, **columns: list[str]) -> None:
    pq.write_table(pa.table(columns), path_of(directory, "metadata", shard))


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


def test_a_table_that_the_servers_disks_cannot_hold_is_a_problem(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "free_disk_bytes", lambda client: 1000)

    with pytest.raises(PreflightFailed, match="ClickHouse disk: needs"):
        check_run(run, client, OPTIONS).check()


def test_shards_that_are_replaced_need_no_more_disk(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "free_disk_bytes", lambda client: 1000)
    monkeypatch.setattr(
        preflight, "rows_by_shard", lambda client, table: {0: ROWS, 1: ROWS, 2: ROWS}
    )

    report = check_run(replace(run, index=None), client, OPTIONS)

    assert verdicts(report)["ClickHouse disk"] == "ok"


def test_an_old_server_matters_only_for_the_search_table(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "OLDEST_SERVER", (99, 1))

    with pytest.raises(PreflightFailed, match="build_index off"):
        check_run(run, client, OPTIONS).check()
    check_run(replace(run, index=None), client, OPTIONS).check()


def test_settings_that_would_cut_a_load_short_are_told(
    run: Run, client: Client, clickhouse_server: EmbeddedServer
) -> None:
    settings = {"max_execution_time": 60, "max_memory_usage": 10**9}
    with clickhouse_server.client(settings=settings, database=client.database) as limited:
        report = check_run(run, limited, OPTIONS)

    assert verdicts(report)["max_execution_time"] == "warning"
    assert verdicts(report)["max_memory_usage"] == "warning"


def test_all_problems_are_told_at_once(
    run: Run, client: Client, shard_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(3):
        (shard_directory / "metadata" / f"metadata_{shard}.parquet").unlink()
    monkeypatch.setattr(server_module, "free_disk_bytes", lambda client: 1000)
    monkeypatch.setattr(target, "missing_grants", lambda client: ["ALTER TABLE"])

    with pytest.raises(PreflightFailed) as caught:
        check_run(run, client, OPTIONS).check()

    text = str(caught.value)
    assert "3 problems" in text
    for part in ("- source: ", "- ClickHouse disk: ", "GRANT ALTER TABLE ON"):
        assert part in text


def test_without_shards_only_clickhouse_is_asked(run: Run, client: Client) -> None:
    report = check_run(replace(run, specs=[]), client, OPTIONS)

    report.check()
    assert "source" not in verdicts(report)
    assert "server" in verdicts(report)


def test_answers_survive_json_and_hold_no_credentials(
    run: Run, client: Client, mirror: Mirror
) -> None:
    secret = mirror.url_with("me:s3cr3t@")
    specs: list[ShardSpec] = [spec_of(secret, shard, dimension=DIMENSION) for shard in (0, 9)]

    report = check_run(replace(run, specs=specs), client, OPTIONS)

    assert "s3cr3t" not in str(report.to_json()) + report.as_table()


class TestStagingOnS3:
    @pytest.fixture
    def s3_run(self, run: Run, s3_server: S3Server, tmp_path: Path) -> Run:
        root = f"s3://{s3_server.make_bucket()}/staging"
        area = BucketArea(root, 2, tmp_path / "scratch", s3_server.options)
        return replace(run, staging=area, s3_access=S3Access(root, s3_server.options))

    def test_it_is_written_by_us_read_by_clickhouse_and_left_empty(
        self, s3_run: Run, client: Client
    ) -> None:
        report = check_run(s3_run, client, OPTIONS)

        report.check()
        assert line(report, "staging").verdict == "ok"
        assert line(report, "scratch disk").needed.endswith("if one machine works on 2 shards")
        assert isinstance(s3_run.staging, BucketArea)
        assert s3_run.staging.objects.list_files(s3_run.staging.root) == []

    def test_a_bucket_that_does_not_exist_and_a_full_disk_are_told_together(
        self, s3_run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(TB, TB - 10, 10))
        assert isinstance(s3_run.staging, BucketArea)
        nowhere = replace(s3_run.staging, root="s3://no-such-bucket/x")

        with pytest.raises(PreflightFailed) as caught:
            check_run(replace(s3_run, staging=nowhere), client, OPTIONS).check()

        assert "2 problems" in str(caught.value)
        assert "LAION_SCRATCH_DIR" in str(caught.value)
        assert "no-such-bucket" in str(caught.value)

    def test_a_server_that_may_not_read_it_is_told(self, s3_run: Run, client: Client) -> None:
        assert s3_run.s3_access is not None
        wrong = replace(s3_run.s3_access.options, secret="not-the-secret")
        refused = replace(s3_run, s3_access=replace(s3_run.s3_access, options=wrong))

        with pytest.raises(PreflightFailed, match="does not let ClickHouse read"):
            check_run(refused, client, OPTIONS).check()


def test_a_base_table_that_its_owner_altered_is_a_problem(run: Run, client: Client) -> None:
    make_tables(client)
    assert verdicts(check_run(run, client, OPTIONS))["base table"] == "ok"

    client.command("ALTER TABLE little DROP COLUMN key")

    with pytest.raises(PreflightFailed, match=r"base table: .*it has no column key"):
        check_run(run, client, OPTIONS).check()
