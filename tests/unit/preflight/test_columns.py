"""What preflight says of the columns of the metadata."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion.errors import PreflightFailed
from laion.preflight import Run, check_run
from tests.shard_files import ROWS, path_of
from tests.unit.mirrors import Mirror
from tests.unit.preflight.reports import OPTIONS, line


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
