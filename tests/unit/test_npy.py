from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from laion.errors import BadNpy
from laion.npy import forget_pages, open_embeddings, read_npy_header

VECTORS = np.arange(12, dtype=np.float16).reshape(4, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.npy"


def save(path: Path, array: npt.NDArray[Any], version: tuple[int, int] = (1, 0)) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version)


def npy_bytes(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def header(shape: str, descr: str = "'<f2'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


class TestRightFiles:
    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_every_version_is_read(self, path: Path, version: tuple[int, int]) -> None:
        save(path, VECTORS, version)

        np.testing.assert_array_equal(open_embeddings(path), VECTORS)

    @pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4"])
    def test_either_byte_order_and_both_widths_are_read(self, path: Path, dtype: str) -> None:
        save(path, VECTORS.astype(dtype))

        found = open_embeddings(path)

        assert found.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(found, VECTORS)

    def test_fortran_order_is_read(self, path: Path) -> None:
        save(path, np.asfortranarray(VECTORS))

        np.testing.assert_array_equal(open_embeddings(path), VECTORS)

    def test_a_file_without_rows_has_no_rows(self, path: Path) -> None:
        save(path, VECTORS[:0])

        assert open_embeddings(path).shape == (0, 3)

    def test_the_header_tells_where_the_array_starts(self) -> None:
        file = io.BytesIO()
        np.save(file, VECTORS)
        file.seek(0)

        found = read_npy_header(file, "a.npy")

        assert (found.shape, found.offset, found.file_bytes) == ((4, 3), 128, 152)

    def test_a_file_of_python_2_is_read_without_a_word(self, path: Path) -> None:
        path.write_bytes(npy_bytes(header("(4L, 3L)"), VECTORS.astype(np.float16).tobytes()))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = open_embeddings(path)

        np.testing.assert_array_equal(array, VECTORS)

    def test_pages_that_were_let_go_are_read_again(self, path: Path) -> None:
        save(path, VECTORS)
        array = open_embeddings(path)

        forget_pages(array)

        np.testing.assert_array_equal(array, VECTORS)


class TestBrokenFiles:
    def test_a_truncated_file_is_told_with_both_sizes(self, path: Path) -> None:
        save(path, VECTORS)
        path.write_bytes(path.read_bytes()[:-1])

        with pytest.raises(BadNpy, match=r"has 151 bytes, but .* needs 152: it is truncated"):
            open_embeddings(path)

    def test_bytes_behind_the_array_are_told(self, path: Path) -> None:
        save(path, VECTORS)
        path.write_bytes(path.read_bytes() + b"\0")

        with pytest.raises(BadNpy, match="something follows the array"):
            open_embeddings(path)

    @pytest.mark.parametrize("content", [b"", b"\x93NUM", b"<html></html>", b"PAR1" * 50])
    def test_a_file_of_another_kind_is_told(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)

        with pytest.raises(BadNpy, match=r"a\.npy is no npy file"):
            open_embeddings(path)

    def test_an_unknown_version_is_told(self, path: Path) -> None:
        path.write_bytes(b"\x93NUMPY\x09\x00" + bytes(200))

        with pytest.raises(BadNpy, match=r"version \(9, 0\)"):
            open_embeddings(path)

    @pytest.mark.parametrize(
        "text",
        [
            "{'descr': ",
            "[" * 5000,
            "-" * 9000 + "1",
            "{}",
            "{[]: 1}",
            "a\n b",
            header("(4, x)"),
            header("(1" + "+1" * 3000 + ", 3)"),
            header("(4, 3)", descr="()"),
        ],
        ids=range(9),
    )
    def test_a_broken_header_is_told(self, path: Path, text: str) -> None:
        path.write_bytes(npy_bytes(text))

        with pytest.raises(BadNpy, match=r"a\.npy is no npy file"):
            open_embeddings(path)

    def test_a_missing_file_is_told(self, path: Path) -> None:
        with pytest.raises(BadNpy, match="cannot be read"):
            open_embeddings(path)


class TestOtherArrays:
    @pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float64, np.complex64, "U4", bool])
    def test_other_types_are_refused_by_name(self, path: Path, dtype: Any) -> None:
        save(path, np.ones((4, 3)).astype(dtype))

        with pytest.raises(BadNpy, match="embeddings are float16 or float32"):
            open_embeddings(path)

    def test_objects_are_refused_without_being_unpickled(self, path: Path, tmp_path: Path) -> None:
        trace = tmp_path / "unpickled"
        np.save(path, np.array([[_Touch(trace)]], dtype=object), allow_pickle=True)

        with pytest.raises(BadNpy, match="object"):
            open_embeddings(path)
        assert not trace.exists()

    @pytest.mark.parametrize("shape", [(), (12,), (2, 2, 3), (4, 0)])
    def test_other_shapes_are_refused(self, path: Path, shape: tuple[int, ...]) -> None:
        save(path, np.zeros(shape, np.float16))

        with pytest.raises(BadNpy, match=r"shape .*; embeddings have shape \(rows, dimension\)"):
            open_embeddings(path)

    def test_a_negative_shape_is_refused(self, path: Path) -> None:
        path.write_bytes(npy_bytes(header("(-4, 3)"), bytes(24)))

        with pytest.raises(BadNpy, match="shape"):
            open_embeddings(path)

    @pytest.mark.parametrize("shape", ["(10**12, 512)", "(4611686018427387904, 512)"])
    def test_an_absurd_shape_allocates_nothing(self, path: Path, shape: str) -> None:
        path.write_bytes(npy_bytes(header(shape.replace("10**12", str(10**12))), bytes(24)))
        tracemalloc.start()

        with pytest.raises(BadNpy, match="truncated"):
            open_embeddings(path)

        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)
