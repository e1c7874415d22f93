"""Embedding files: npy arrays of shape (rows, dimension), float16 or float32."""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from laion.errors import BadNpy

MAX_HEADER_BYTES = 10_000
"""Headers of real files are 128 bytes; numpy's own limit is this."""

READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
BROKEN = (
    ValueError, TypeError, IndexError, OSError,
    SyntaxError, TokenError, MemoryError, RecursionError,
)  # fmt: skip
"""What numpy raises for headers that are none."""

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NpyHeader:
    """What the header of an npy file promises; `offset` is where the array starts, in bytes."""

    shape: tuple[int, int]
    dtype: np.dtype[np.floating[Any]]
    fortran_order: bool
    offset: int

    @property
    def file_bytes(self) -> int:
        """The size that the file must have."""
        return self.offset + self.shape[0] * self.shape[1] * self.dtype.itemsize


def read_npy_header(file: BinaryIO, name: str) -> NpyHeader:
    """Read the header of npy version 1.0 to 3.0; `name` is for messages. Raises BadNpy."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise BadNpy(f"{name}: npy version {version} is unknown")
        with warnings.catch_warnings():
            # That Python 2 wrote it, or that its type has a newer name.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = READERS[version](file, max_header_size=MAX_HEADER_BYTES)
    except BROKEN as error:
        raise BadNpy(f"{name} is no npy file: {error}") from error
    if dtype.kind != "f" or dtype.itemsize not in (2, 4):
        raise BadNpy(f"{name} holds {dtype} values; embeddings are float16 or float32")
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
        raise BadNpy(f"{name} has shape {shape}; embeddings have shape (rows, dimension)")
    return NpyHeader(shape, dtype, fortran_order, file.tell())


def open_embeddings(path: Path) -> FloatArray:
    """Return the (rows, dimension) array of an npy file, memory-mapped, in the file's own dtype.

    Either byte order, C or Fortran order. Nothing is allocated or unpickled on the word of the
    header. Raises BadNpy.
    """
    try:
        with path.open("rb") as file:
            header = read_npy_header(file, str(path))
        size = path.stat().st_size
    except OSError as error:
        raise BadNpy(f"{path} cannot be read: {error}") from error
    if size != header.file_bytes:
        raise BadNpy(
            f"{path} has {size:,} bytes, but shape {header.shape} of {header.dtype} needs "
            f"{header.file_bytes:,}: "
            + ("it is truncated" if size < header.file_bytes else "something follows the array")
        )
    if header.shape[0] == 0:
        return np.empty(header.shape, header.dtype)
    return np.memmap(
        path,
        header.dtype,
        mode="r",
        offset=header.offset,
        shape=header.shape,
        order="F" if header.fortran_order else "C",
    )


def forget_pages(array: FloatArray) -> None:
    """Take a memory-mapped array's pages out of the process; reading brings them back.

    Otherwise the resident memory of the process grows with every row it reads.
    """
    mapping: mmap.mmap | None = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
