from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from laion.convert import BATCH_ROWS, convert_shard
from laion.errors import (
    BadMetadata,
    WrongDimension,
)
from laion.shards import ROWS_PER_SHARD_LIMIT, ShardFiles
from laion.vectors import clip_dimensions, clip_vectors
from tests.shard_files import (
    ATTEMPT,
    DIMENSION,
    ROLES,
    VECTORS,
    files_of,
    read_metadata,
    read_vectors,
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


def convert_metadata(directory: Path, target: Path, **columns: Any) -> pa.Table:
    """Convert a shard of good vectors with these metadata columns; return the result."""
    table = pa.table(columns)
    files = write_arrays(directory, unit_vectors(len(table)), unit_vectors(len(table)), table)
    convert_shard(files, target)
    return read_converted(target)


class TestRecord:
    def test_it_tells_what_is_in_the_file(self, shard_directory: Path, target: Path) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)

        parquet = convert_shard(files, target)

        known = replace(files.spec, vectors=list(clip_vectors(DIMENSION)))
        assert (parquet.spec, parquet.attempt) == (known, ATTEMPT)
        assert parquet.rows == ROWS
        assert parquet.rows_of == dict.fromkeys(ROLES, ROWS)
        assert parquet.dimensions == clip_dimensions(DIMENSION)
        assert parquet.size == target.stat().st_size
        assert (parquet.bad_vectors, parquet.norms_off, parquet.alignment) == (0, 0, "unknown")

    def test_a_sound_shard_of_many_rows_is_found_aligned(
        self, shard_directory: Path, target: Path
    ) -> None:
        files = write_little_shard(shard_directory, rows=2 * BATCH_ROWS + 1)

        assert convert_shard(files, target).alignment == "aligned"

    def test_it_can_be_converted_again(self, shard_directory: Path, target: Path) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)

        assert convert_shard(files, target) == convert_shard(files, target)


class TestIds:
    @pytest.mark.parametrize("shard", [0, 7, 409])
    def test_they_count_rows_within_the_range_of_the_shard(
        self, shard_directory: Path, target: Path, shard: int
    ) -> None:
        convert_shard(write_little_shard(shard_directory, shard, rows=ROWS), target)

        first = shard * ROWS_PER_SHARD_LIMIT
        assert read_converted(target)["id"].to_pylist() == list(range(first, first + ROWS))

    def test_they_go_on_over_batches(self, shard_directory: Path, target: Path) -> None:
        rows = BATCH_ROWS + 10
        convert_shard(write_little_shard(shard_directory, rows=rows), target)

        assert read_converted(target)["id"].to_pylist() == list(range(rows))


class TestVectors:
    def test_those_of_a_shard_are_preserved_bit_for_bit(
        self, shard_directory: Path, target: Path
    ) -> None:
        convert_shard(write_little_shard(shard_directory, rows=BATCH_ROWS + 10), target)

        table = read_converted(target)
        for role in VECTORS:
            found = vectors_in(table, role)
            assert found.dtype == np.float16
            np.testing.assert_array_equal(found, read_vectors(shard_directory, role))

    @pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_any_byte_order_width_and_memory_order_gives_the_same_vectors(
        self, shard_directory: Path, target: Path, dtype: str, order: Any
    ) -> None:
        images = np.asarray(unit_vectors(ROWS, seed=1).astype(dtype), order=order)
        texts = np.asarray(unit_vectors(ROWS, seed=2).astype(dtype), order=order)
        metadata = pa.table({"caption": ["a"] * ROWS})

        convert_shard(write_arrays(shard_directory, images, texts, metadata), target)

        table = read_converted(target)
        np.testing.assert_array_equal(vectors_in(table, "image_embedding"), images)
        np.testing.assert_array_equal(vectors_in(table, "text_embedding"), texts)

    def test_the_two_sides_may_differ_in_width(self, shard_directory: Path, target: Path) -> None:
        images, texts = unit_vectors(ROWS).astype(np.float16), unit_vectors(ROWS)
        metadata = pa.table({"caption": ["a"] * ROWS})

        convert_shard(write_arrays(shard_directory, images, texts, metadata), target)

        table = read_converted(target)
        np.testing.assert_array_equal(vectors_in(table, "image_embedding"), images)
        np.testing.assert_array_equal(vectors_in(table, "text_embedding"), texts)

    @pytest.mark.parametrize("role", VECTORS)
    def test_one_side_of_another_dimension_is_refused(
        self, shard_directory: Path, target: Path, role: str
    ) -> None:
        write_little_shard(shard_directory, rows=ROWS)
        files = files_of(shard_directory, dimension=DIMENSION)
        np.save(files.paths[role], unit_vectors(ROWS, dimension=8))

        with pytest.raises(WrongDimension, match="shard 00000"):
            convert_shard(files, target)

    def test_another_dimension_than_the_datasets_is_refused_with_both(
        self, shard_directory: Path, target: Path
    ) -> None:
        write_little_shard(shard_directory, rows=ROWS)

        with pytest.raises(WrongDimension, match="has 16 dimensions, 512 are expected"):
            convert_shard(files_of(shard_directory, dimension=512), target)


class TestMetadata:
    CAPTIONS = (
        'a "quoted" caption',
        "it's, with, commas",
        "back\\slash \\N \\t",
        "two\nlines\r\n\ttab",
        "nul \0 byte",
        "  spaces  ",
        "日本語 🐈 é",
        "",
    )

    def test_captions_are_preserved_byte_for_byte(
        self, shard_directory: Path, target: Path
    ) -> None:
        table = convert_metadata(shard_directory, target, caption=list(self.CAPTIONS))

        assert table["caption"].to_pylist() == list(self.CAPTIONS)

    def test_a_caption_that_is_no_utf8_is_preserved_byte_for_byte(
        self, shard_directory: Path, target: Path
    ) -> None:
        raw = pa.array([b"caf\xe9", b"\xff\xfe"])
        text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())

        table = convert_metadata(shard_directory, target, caption=text)

        assert table["caption"].cast(pa.large_binary()).to_pylist() == [b"caf\xe9", b"\xff\xfe"]

    def test_the_columns_of_a_laion_shard_are_preserved(
        self, shard_directory: Path, target: Path
    ) -> None:
        convert_shard(write_little_shard(shard_directory, rows=2000), target)

        source, table = read_metadata(shard_directory), read_converted(target)
        for name in ("url", "caption", "NSFW", "LICENSE"):
            assert table[name].to_pylist() == [value or "" for value in source[name].to_pylist()]
        for name in ("width", "height", "original_width", "original_height"):
            assert table[name].to_pylist() == source[name].to_pylist()
        assert table["key"].to_pylist() == [str(key) for key in source["key"].to_pylist()]
        np.testing.assert_array_equal(
            table["similarity"].to_numpy(), source["similarity"].to_numpy().astype(np.float32)
        )

    def test_null_texts_become_empty(self, shard_directory: Path, target: Path) -> None:
        columns = {name: [None, "x"] for name in ("url", "caption", "NSFW", "LICENSE", "key")}

        table = convert_metadata(shard_directory, target, **columns)

        for name in columns:
            assert table[name].to_pylist() == ["", "x"]

    def test_a_null_similarity_becomes_nan(self, shard_directory: Path, target: Path) -> None:
        table = convert_metadata(shard_directory, target, similarity=[None, 0.5])

        np.testing.assert_array_equal(table["similarity"].to_numpy(), [np.nan, 0.5])
        assert table["similarity"].null_count == 0

    def test_null_sizes_become_zero(self, shard_directory: Path, target: Path) -> None:
        table = convert_metadata(shard_directory, target, width=[None, 256])

        assert table["width"].to_pylist() == [0, 256]

    def test_columns_that_are_missing_are_as_if_null(
        self, shard_directory: Path, target: Path
    ) -> None:
        table = convert_metadata(shard_directory, target, image_path=["a", "b"])

        assert table["caption"].to_pylist() == ["", ""]
        assert table["height"].to_pylist() == [0, 0]
        assert np.isnan(table["similarity"].to_numpy()).all()

    def test_columns_of_type_null_are_as_if_missing(
        self, shard_directory: Path, target: Path
    ) -> None:
        nulls = pa.nulls(2)

        table = convert_metadata(
            shard_directory, target, caption=nulls, similarity=nulls, width=nulls
        )

        assert table["caption"].to_pylist() == ["", ""]
        assert table["width"].to_pylist() == [0, 0]
        assert np.isnan(table["similarity"].to_numpy()).all()

    def test_columns_that_are_not_ours_are_ignored(
        self, shard_directory: Path, target: Path
    ) -> None:
        table = convert_metadata(
            shard_directory,
            target,
            caption=["a"],
            exif=[{"Make": ["Canon"]}],
            shard=["x"],
            id=["y"],
        )

        assert "exif" not in table.column_names
        assert table["id"].to_pylist() == [0]

    def test_columns_may_come_in_any_order(self, shard_directory: Path, target: Path) -> None:
        files = write_little_shard(shard_directory, rows=ROWS)
        convert_shard(files, target)
        expected = read_converted(target)
        reversed_ = read_metadata(shard_directory).select(
            read_metadata(shard_directory).column_names[::-1]
        )
        pq.write_table(reversed_, files.paths["metadata"])

        convert_shard(files, target)

        assert read_converted(target).drop(["similarity"]).equals(expected.drop(["similarity"]))

    @pytest.mark.parametrize(
        "captions",
        [
            pa.array(["a", None], pa.large_string()),
            pa.array(["a", None]).dictionary_encode(),
            pa.array([b"a", None]),
        ],
        ids=lambda array: str(array.type),
    )
    def test_texts_may_be_of_any_string_type(
        self, shard_directory: Path, target: Path, captions: pa.Array
    ) -> None:
        table = convert_metadata(shard_directory, target, caption=captions)

        assert table["caption"].to_pylist() == ["a", ""]

    @pytest.mark.parametrize(
        "column",
        [
            {"caption": [{"a": 1}]},
            {"similarity": ["high"]},
            {"width": [-1]},
            {"width": [2**32]},
        ],
        ids=str,
    )
    def test_an_unusable_value_is_typed_with_the_shard(
        self, shard_directory: Path, target: Path, column: dict[str, Any]
    ) -> None:
        with pytest.raises(BadMetadata, match="shard 00000: metadata"):
            convert_metadata(shard_directory, target, **column)


MEASURE = """
import sys
from pathlib import Path
from laion.convert import convert_shard
from tests.shard_files import files_of
directory = Path(sys.argv[1])
convert_shard(files_of(directory), directory / "0.parquet")
# Not ru_maxrss, which starts with what the parent process had.
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""
SMALL_ROWS = 4 * BATCH_ROWS
WIDE = 256
TOLERATED_GROWTH_KIB = 32 << 10


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    peaks_kib = []
    for rows in (SMALL_ROWS, 4 * SMALL_ROWS):
        vectors = np.resize(unit_vectors(SMALL_ROWS, WIDE).astype(np.float16), (rows, WIDE))
        captions = pa.table({"caption": ["a caption of some length"] * rows})
        directory = tmp_path / str(rows)
        write_arrays(directory, vectors, vectors, captions)
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, str(directory)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks_kib.append(int(run.stdout))

    # The larger shard's vectors take 96 MiB more.
    assert peaks_kib[1] - peaks_kib[0] < TOLERATED_GROWTH_KIB


@pytest.fixture
def real_samples() -> Path:
    """Real files of the kinds that are loaded, where somebody has some."""
    if "LAION_REAL_SAMPLES" not in os.environ:
        pytest.skip("LAION_REAL_SAMPLES names no directory with real samples")
    return Path(os.environ["LAION_REAL_SAMPLES"])


class TestRealSamples:
    def test_an_output_of_clip_retrieval_is_preserved(
        self, real_samples: Path, target: Path
    ) -> None:
        directory = real_samples / "clip_retrieval_sample"
        paths = {
            "image_embedding": str(directory / "img_emb_0.npy"),
            "text_embedding": str(directory / "text_emb_0.npy"),
            "metadata": str(directory / "metadata_0.parquet"),
        }
        spec = files_of(directory, check=False).spec
        files = ShardFiles(spec, ATTEMPT, paths, {}, staged=False)

        parquet = convert_shard(files, target)

        table = read_converted(target)
        assert (parquet.rows, parquet.dimensions, parquet.norms_off) == (9, clip_dimensions(512), 0)
        assert (
            table["caption"].to_pylist() == pq.read_table(paths["metadata"])["caption"].to_pylist()
        )
        for role in VECTORS:
            np.testing.assert_array_equal(vectors_in(table, role), np.load(paths[role]))

    def test_the_metadata_of_a_laion_shard_is_preserved(
        self, real_samples: Path, shard_directory: Path, target: Path
    ) -> None:
        source = pq.read_table(real_samples / "laion_metadata_sample" / "metadata_0.parquet")
        vectors = unit_vectors(len(source))

        convert_shard(write_arrays(shard_directory, vectors, vectors, source), target)

        table = read_converted(target)
        for name in ("url", "caption", "NSFW", "LICENSE"):
            assert table[name].to_pylist() == [value or "" for value in source[name].to_pylist()]
        assert table["original_width"].to_pylist() == source["original_width"].to_pylist()
        np.testing.assert_array_equal(
            table["similarity"].to_numpy(), source["similarity"].to_numpy().astype(np.float32)
        )
