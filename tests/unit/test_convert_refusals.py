from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion.convert import BATCH_ROWS, Rules, convert_shard, inspect_shard
from laion.errors import (
    BadMetadata,
    BadNpy,
    BadVectors,
    DiskFull,
    LaionError,
    Misaligned,
    RowCountMismatch,
    StagingGone,
)
from laion.shards import ShardFiles
from tests.shard_files import (
    ROLES,
    append,
    corrupt_column_name,
    corrupt_pages,
    drop_last_row,
    files_of,
    path_of,
    read_metadata,
    scale_vectors,
    set_vectors,
    shift_rows,
    truncate,
    unit_vectors,
    write_arrays,
    write_little_shard,
)

ROWS = 40

Array = npt.NDArray[Any]


def read_converted(path: Path) -> pa.Table:
    return pq.read_table(path)


def vectors_in(table: pa.Table, role: str) -> Array:
    """Decode a column of vectors as the module's docstring tells every reader to."""
    dtype = table.schema.field(role).metadata[b"laion.dtype"].decode()
    raw = b"".join(table[role].to_pylist())
    return np.frombuffer(raw, dtype).reshape(len(table), -1)


class TestRowCounts:
    @pytest.mark.parametrize("role", ROLES)
    def test_a_file_that_is_a_row_short_is_refused_with_all_numbers(
        self, shard_directory: Path, target: Path, role: Any
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        drop_last_row(shard_directory, role)

        with pytest.raises(RowCountMismatch, match=f"{role} {ROWS - 1}") as caught:
            convert_shard(files, target)
        assert str(caught.value).count(f" {ROWS}") == 2

    def test_a_shard_that_is_not_as_long_as_the_manifest_says_is_refused(
        self, shard_directory: Path, target: Path
    ) -> None:
        write_little_shard(shard_directory, rows=ROWS)

        with pytest.raises(RowCountMismatch, match="manifest 41"):
            convert_shard(files_of(shard_directory, rows=ROWS + 1), target)

    def test_a_shard_without_rows_is_refused(self, shard_directory: Path, target: Path) -> None:
        none = unit_vectors(1)[:0]
        files = write_arrays(
            shard_directory, none, none, pa.table({"caption": pa.array([], "str")})
        )

        with pytest.raises(RowCountMismatch, match="no rows"):
            convert_shard(files, target)


def truncate_images(directory: Path) -> None:
    truncate(path_of(directory, "image_embedding"))


def lengthen_texts(directory: Path) -> None:
    append(path_of(directory, "text_embedding"))


def truncate_metadata(directory: Path) -> None:
    truncate(path_of(directory, "metadata"))


def corrupt_metadata(directory: Path) -> None:
    corrupt_pages(path_of(directory, "metadata"))


def corrupt_metadata_name(directory: Path) -> None:
    corrupt_column_name(path_of(directory, "metadata"))


def replace_metadata_by_a_page(directory: Path) -> None:
    path_of(directory, "metadata").write_text("<html>Not here</html>")


def drop_a_row(directory: Path) -> None:
    drop_last_row(directory, "text_embedding")


def put_nan(directory: Path) -> None:
    set_vectors(directory, "text_embedding", {5: np.nan})


def put_zero(directory: Path) -> None:
    set_vectors(directory, "image_embedding", {5: 0.0})


def double_lengths(directory: Path) -> None:
    scale_vectors(directory, "image_embedding", slice(None), 2.0)


DAMAGES: list[tuple[Any, type[LaionError]]] = [
    (truncate_images, BadNpy),
    (lengthen_texts, BadNpy),
    (truncate_metadata, BadMetadata),
    (corrupt_metadata, BadMetadata),
    (corrupt_metadata_name, BadMetadata),
    (replace_metadata_by_a_page, BadMetadata),
    (drop_a_row, RowCountMismatch),
    (put_nan, BadVectors),
    (put_zero, BadVectors),
    (double_lengths, BadVectors),
]


class TestDamage:
    @pytest.mark.parametrize(("damage", "error"), DAMAGES)
    def test_each_is_typed_and_leaves_no_file(
        self, shard_directory: Path, target: Path, damage: Any, error: type[LaionError]
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        damage(shard_directory)

        with pytest.raises(error):
            convert_shard(files, target)
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize("role", ROLES)
    def test_a_missing_input_tells_what_to_clear(
        self, shard_directory: Path, target: Path, role: str
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        Path(files.paths[role]).unlink()

        with pytest.raises(StagingGone, match=r"shard 00000: .*clear this task"):
            convert_shard(files, target)

    def test_the_source_is_left_byte_for_byte_as_it_is(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        before = {path: Path(path).read_bytes() for path in files.paths.values()}

        convert_shard(files, target)

        assert {path: Path(path).read_bytes() for path in before} == before

    def test_a_full_disk_is_typed_and_leaves_no_file(
        self, shard_directory: Path, full_disk: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=2000)

        with pytest.raises(DiskFull, match=r"0\.parquet needs about 128,000 bytes"):
            convert_shard(files, full_disk / "0.parquet")
        assert list(full_disk.iterdir()) == []


class TestRules:
    def test_allowed_bad_vectors_are_kept_as_they_are_and_counted(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        set_vectors(shard_directory, "image_embedding", {5: np.nan, 6: 0.0})

        parquet = convert_shard(files, target, Rules(max_bad_vectors=2))

        assert parquet.bad_vectors == 2
        found = vectors_in(read_converted(target), "image_embedding")
        assert np.isnan(found[5]).all()
        assert not found[6].any()

    def test_the_first_bad_vector_is_told_by_its_row_in_the_shard(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=BATCH_ROWS + 10)
        set_vectors(shard_directory, "text_embedding", {BATCH_ROWS + 3: np.inf})

        with pytest.raises(BadVectors, match=f"text_embedding, row {BATCH_ROWS + 3:,}"):
            convert_shard(files, target)

    def test_a_few_lengths_off_are_warned_about(
        self, shard_directory: Path, target: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = write_little_shard(shard_directory, rows=1100)
        scale_vectors(shard_directory, "image_embedding", slice(7, 8), 1.5)

        parquet = convert_shard(files, target)

        assert parquet.norms_off == 1
        assert "shard 00000: 1 vectors are not of unit length" in caplog.messages

    def test_shifted_rows_are_warned_about(
        self, shard_directory: Path, target: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = write_little_shard(shard_directory, rows=1100)
        shift_rows(shard_directory, "text_embedding")

        with caplog.at_level(logging.WARNING):
            parquet = convert_shard(files, target)

        assert parquet.alignment == "unclear"
        assert any("correlation" in message for message in caplog.messages)

    def test_shifted_rows_fail_when_strict_and_leave_no_file(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=1100)
        shift_rows(shard_directory, "text_embedding")

        with pytest.raises(Misaligned):
            convert_shard(files, target, Rules(strict_alignment=True))
        assert list(target.parent.iterdir()) == []

    def test_metadata_moved_by_a_row_fail_with_the_way_out_and_leave_no_file(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=1100)
        move_metadata(shard_directory)

        with pytest.raises(Misaligned, match="run with accept_misaligned"):
            convert_shard(files, target)
        assert list(target.parent.iterdir()) == []

    def test_metadata_moved_by_a_row_pass_when_that_is_accepted(
        self, shard_directory: Path, target: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        files = write_little_shard(shard_directory, rows=1100)
        move_metadata(shard_directory)

        with caplog.at_level(logging.WARNING):
            parquet = convert_shard(files, target, Rules(accept_misaligned=True))

        assert parquet.alignment == "misaligned"
        assert any("correlation" in message for message in caplog.messages)


def move_metadata(directory: Path) -> None:
    table = read_metadata(directory)
    moved = pa.concat_tables([table.slice(1), table.slice(0, 1)])
    pq.write_table(moved, path_of(directory, "metadata"))


class TestInspection:
    def test_it_counts_the_rows(self, shard_directory: Path) -> None:
        assert inspect_shard(write_little_shard(shard_directory, rows=ROWS)) == ROWS

    @pytest.mark.parametrize(
        ("damage", "error"),
        [(damage, error) for damage, error in DAMAGES if error in (BadNpy, RowCountMismatch)]
        + [(truncate_metadata, BadMetadata), (corrupt_metadata_name, BadMetadata)],
    )
    def test_it_finds_damage_that_headers_and_footers_tell(
        self, shard_directory: Path, damage: Any, error: type[LaionError]
    ) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        damage(shard_directory)

        with pytest.raises(error):
            inspect_shard(files)


class TestRequiredColumns:
    @pytest.mark.parametrize("convert", [convert_shard, lambda files, target: inspect_shard(files)])
    def test_a_file_without_one_is_refused_with_the_columns_it_has(
        self, shard_directory: Path, target: Path, convert: Any
    ) -> None:
        files = requiring_url(shard_directory, link=["http://h/x.jpg"] * 4, caption=["a"] * 4)

        with pytest.raises(BadMetadata, match=r"metadata: has no column 'url'.* are link, caption"):
            convert(files, target)

    def test_a_file_whose_column_is_empty_in_every_row_is_refused(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = requiring_url(shard_directory, URL=["", None, "", None])

        with pytest.raises(BadMetadata, match="column 'URL' has no value in any of 4 rows"):
            convert_shard(files, target)
        assert list(target.parent.iterdir()) == []

    def test_one_row_with_a_value_is_enough(self, shard_directory: Path, target: Path) -> None:
        convert_shard(requiring_url(shard_directory, URL=["", None, "", "http://h/x.jpg"]), target)

        assert read_converted(target)["url"].to_pylist() == ["", "", "", "http://h/x.jpg"]


def requiring_url(directory: Path, **columns: list[str | None]) -> ShardFiles:
    files = write_arrays(directory, unit_vectors(4), unit_vectors(4), pa.table(columns))
    return replace(files, spec=replace(files.spec, required=["url"]))
