"""Whatever the bytes of a shard's files: the right Parquet file, or a typed error and no file.

`FUZZ_EXAMPLES` sets how many cases each property tries.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laion.convert import Rules, convert_shard, inspect_shard
from laion.errors import FormatError
from laion.npy import open_embeddings
from laion.shards import ShardFiles
from tests.fuzzing import fuzz
from tests.shard_files import (
    DIMENSION,
    VECTORS,
    files_of,
    path_of,
    unit_vectors,
    write_little_shard,
)

ROWS = 12
LENIENT = Rules(max_bad_vectors=10**9)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sound")
    write_little_shard(directory, 0, ROWS)
    return directory


def convert_somewhere(files: ShardFiles) -> pa.Table | None:
    """Convert a shard; None when it is refused, with nothing left behind. Checks the rows."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "0.parquet"
        try:
            inspect_shard(files)
            converted = convert_shard(files, target, LENIENT)
        except FormatError as error:
            refusal = str(error)
            converted = None
        if converted is None:
            assert any(named in refusal for named in ("shard 00000", ".npy", ".parquet"))
            assert list(Path(name).iterdir()) == []
            return None
        assert [path.name for path in Path(name).iterdir()] == ["0.parquet"]
        table = pq.read_table(target)
    assert len(table) == converted.rows == pq.ParquetFile(files.paths["metadata"]).metadata.num_rows
    return table


def check_vectors(files: ShardFiles, table: pa.Table) -> None:
    """What was converted must be what numpy reads from the same files, bit for bit."""
    for role in VECTORS:
        source = np.load(files.paths[role])
        little = np.ascontiguousarray(source, source.dtype.newbyteorder("<"))
        assert b"".join(table[role].to_pylist()) == little.tobytes()


@fuzz(150)
@given(data=st.data(), role=st.sampled_from([*VECTORS, "metadata"]))
def test_damaged_bytes(sound: Path, data: st.DataObject, role: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "shard"
        shutil.copytree(sound, directory)
        path = path_of(directory, role)
        content = bytearray(path.read_bytes())
        # Headers and footers are where the structure is.
        near_edges = st.one_of(
            st.integers(0, len(content) - 1),
            st.integers(0, 160),
            st.integers(max(0, len(content) - 4000), len(content) - 1),
        )
        for _ in range(data.draw(st.integers(0, 4), label="flips")):
            content[data.draw(near_edges)] ^= data.draw(st.integers(1, 255))
        if data.draw(st.booleans(), label="cut"):
            del content[data.draw(near_edges) :]
        content += data.draw(st.binary(max_size=40), label="appended")
        path.write_bytes(content)
        files = files_of(directory)

        table = convert_somewhere(files)

        if table is not None:
            check_vectors(files, table)


HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(
            ["<f2", ">f2", "<f4", ">f4", "<f8", "<i4", "|O", "|u1", "<U4", ""]
        ),
        "fortran_order": st.sampled_from([True, False, 0, "no"]),
        "shape": st.one_of(
            st.just((ROWS, DIMENSION)),
            st.tuples(st.integers(-2, 2**62), st.integers(-2, 2**62)),
            st.lists(st.integers(-1, 20), max_size=4).map(tuple),
        ),
    }
)


@fuzz(150)
@given(
    header=HEADERS,
    version=st.sampled_from([(1, 0), (2, 0), (3, 0), (4, 0), (1, 7)]),
    extra=st.sampled_from(["", ", 'x': 1", ", 'x': __import__('os').getpid()"]),
    payload=st.sampled_from([0, 1, ROWS * DIMENSION * 2, ROWS * DIMENSION * 4]),
)
def test_npy_headers(
    tmp_path: Path, header: dict[str, Any], version: tuple[int, int], extra: str, payload: int
) -> None:
    text = (repr(header)[:-1] + extra + "}").encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    path = tmp_path / "x.npy"
    values = unit_vectors(ROWS).astype("<f4").tobytes()[:payload]
    path.write_bytes(b"\x93NUMPY" + bytes(version) + length + text + values)

    array, refusal = None, ""
    try:
        array = open_embeddings(path)
    except FormatError as error:
        refusal = str(error)

    if array is None:
        assert str(path) in refusal
    else:
        np.testing.assert_array_equal(array, np.load(path))


NESTED = pa.struct([("a", pa.int8())])
COLUMNS = st.dictionaries(
    st.sampled_from(["caption", "url", "NSFW", "similarity", "width", "key", "LICENSE", "other"]),
    st.sampled_from(
        [
            pa.array(["x"] * ROWS),
            pa.array(["é" * 100_000, *[None] * (ROWS - 1)]),
            pa.array([b"\xff\xfe"] * ROWS),
            pa.array([None] * ROWS, pa.null()),
            pa.array([0.5] * ROWS, pa.float16()),
            pa.array([float("nan")] * ROWS),
            pa.array([-1] * ROWS),
            pa.array([2**40] * ROWS),
            pa.array([{"a": 1}] * ROWS, NESTED),
            pa.array([[1, 2]] * ROWS),
            pa.array(["x"] * ROWS).dictionary_encode(),
            pa.array([True] * ROWS),
        ]
    ),
)


@fuzz(150)
@given(columns=COLUMNS)
def test_metadata_columns_of_any_type(sound: Path, columns: dict[str, pa.Array]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "shard"
        shutil.copytree(sound, directory)
        table = pa.table(columns) if columns else pa.table({"none": pa.array([0] * ROWS)})
        pq.write_table(table, path_of(directory, "metadata"))

        converted = convert_somewhere(files_of(directory))

        if converted is not None:
            assert converted["id"].to_pylist() == list(range(ROWS))
            if pa.types.is_string(columns.get("caption", pa.array([0])).type):
                expected = [text or "" for text in columns["caption"].to_pylist()]
                assert converted["caption"].to_pylist() == expected


SPECIAL = [0.0, -0.0, 1e-7, 6e-8, np.inf, -np.inf, np.nan, 65504.0, 1.0]


@fuzz(150)
@given(
    odd=st.dictionaries(
        st.integers(0, ROWS - 1), st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4)
    ),
    dtype=st.sampled_from(["<f2", ">f4"]),
    allowed=st.integers(0, 3),
)
def test_odd_values(sound: Path, odd: dict[int, list[float]], dtype: str, allowed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "shard"
        shutil.copytree(sound, directory)
        vectors = unit_vectors(ROWS).astype(dtype)
        for row, values in odd.items():
            vectors[row] = np.resize(values, DIMENSION)
        np.save(path_of(directory, "image_embedding"), vectors)
        as_float = vectors.astype(np.float64)
        bad = int(np.sum(~np.isfinite(as_float).all(axis=1) | ~as_float.any(axis=1)))
        target = Path(name) / "0.parquet"

        try:
            converted = convert_shard(files_of(directory), target, Rules(max_bad_vectors=allowed))
        except FormatError:
            assert not target.exists()
        else:
            assert converted.bad_vectors == bad <= allowed
            check_vectors(files_of(directory), pq.read_table(target))
