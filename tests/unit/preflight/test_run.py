"""What is asked before a run, and what makes it pointless."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion import preflight
from laion.clickhouse import server as server_module
from laion.clickhouse.shards.pull import S3Access
from laion.errors import PreflightFailed, SourceUnreachable
from laion.preflight import Run, check_run, target
from laion.shards import ShardSpec
from laion.storage import BucketArea, DirectoryArea
from tests.embedded_server import EmbeddedServer
from tests.s3 import S3Server
from tests.shard_files import DIMENSION, ROWS, spec_of
from tests.unit.clickhouse.shard_steps import make_tables
from tests.unit.mirrors import Mirror, unused_url
from tests.unit.preflight.reports import OPTIONS, line, verdicts

TB = 10**12

Usage = namedtuple("Usage", "total used free")


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
