"""The process that ClickHouse keeps to answer `encode_text` or `encode_image`.

    laion_udf_<version>.pyz encode_text

ClickHouse writes chunks to its standard input, a line with the number of rows and then the rows
as RowBinary, and expects exactly as many rows back: one too many would shift the results of every
later query, one too few would hang this one. So nothing but `_answer` can write to ClickHouse,
and a row that cannot be encoded becomes an empty array and a line on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from laion.encoders.vectors import Vectors
from laion.errors import LaionError
from laion.udf.options import WorkerOptions
from laion.udf.pictures import open_picture, open_root
from laion.udf.rowbinary import EMPTY_ARRAY, encode_array, read_string

TEXT_WINDOW_ROWS = 1024
IMAGE_WINDOW_ROWS = 32
MAX_COMPLAINTS = 10
"""Lines on stderr per chunk; who reads them may read slowly, and a full pipe would stop us."""

_ENVIRONMENT = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Encoder:
    """One of the two functions: `prepare` looks at a row by itself, `encode` takes many."""

    prepare: Callable[[str], Any]
    encode: Callable[[Sequence[Any]], Vectors]
    window_rows: int


def main(bundle: Path) -> int:
    """Serve one function until standard input ends; return the exit code."""
    _scrub_environment()
    stdin, stdout = _take_standard_streams()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        options = WorkerOptions.read(bundle.with_suffix(".json"))
        encoder = ENCODERS[name](options)
    except (LaionError, OSError, ValueError, TypeError, KeyError) as error:
        print(f"{name or bundle.name}: cannot start: {error!r}", file=sys.stderr)
        return 1
    serve(encoder, stdin, stdout, name)
    return 0


def serve(encoder: Encoder, stdin: BinaryIO, stdout: BinaryIO, name: str) -> None:
    """Answer chunk after chunk until `stdin` ends."""
    while line := stdin.readline():
        complaints = _Complaints(name)
        rows = int(line)
        for start in range(0, rows, encoder.window_rows):
            count = min(encoder.window_rows, rows - start)
            _answer(encoder, [read_string(stdin) for _ in range(count)], stdout, complaints, start)
        complaints.finish()


def open_text_encoder(options: WorkerOptions) -> Encoder:
    """Load what `encode_text` needs, and no module of the other function. Raises BadModel."""
    from laion.encoders.text import load_text_encoder

    encoder = load_text_encoder(Path(options.model_dir), options.threads)
    return Encoder(lambda text: text, encoder.encode, TEXT_WINDOW_ROWS)


def open_image_encoder(options: WorkerOptions) -> Encoder:
    """Load what `encode_image` needs, and no module of the other function.

    Raises BadModel, BadSetting.
    """
    from laion.encoders.decode import decode_image
    from laion.encoders.image import load_image_encoder
    from laion.encoders.known_picture import KNOWN_PICTURE_NAME, open_known_picture

    encoder = load_image_encoder(Path(options.model_dir), options.threads)
    root = open_root(options.image_root)

    def prepare(name: str) -> Any:
        if name == KNOWN_PICTURE_NAME:
            return encoder.prepare(open_known_picture())
        with open_picture(root, name, options.max_file_bytes) as file:
            return encoder.prepare(decode_image(file, options.max_pixels))

    return Encoder(prepare, encoder.encode, IMAGE_WINDOW_ROWS)


ENCODERS: dict[str, Callable[[WorkerOptions], Encoder]] = {
    "encode_text": open_text_encoder,
    "encode_image": open_image_encoder,
}


class _Complaints:
    """Lines on stderr about the rows of one chunk, the first few in full."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def add(self, row: int, value: bytes, error: Exception) -> None:
        self._count += 1
        if self._count <= MAX_COMPLAINTS:
            # As bytes: a name with line breaks cannot forge a line of the log.
            shown = ascii(value[:_SHOWN_CHARACTERS])
            print(f"{self._name}: row {row}: {shown}: {str(error)!a}", file=sys.stderr)

    def finish(self) -> None:
        if self._count > MAX_COMPLAINTS:
            more = self._count - MAX_COMPLAINTS
            print(f"{self._name}: and {more} more rows without a result", file=sys.stderr)
        sys.stderr.flush()


def _answer(
    encoder: Encoder, values: list[bytes], stdout: BinaryIO, complaints: _Complaints, start: int
) -> None:
    """Write exactly one result for each of `values`, in one flush."""
    results = [EMPTY_ARRAY] * len(values)
    prepared: dict[int, Any] = {}
    for row, value in enumerate(values):
        try:
            prepared[row] = encoder.prepare(value.decode())
        except Exception as error:
            complaints.add(start + row, value, error)
    try:
        vectors = encoder.encode(list(prepared.values()))
    except Exception:
        # One of them is the cause; each by itself, it can spoil only its own result.
        for row, value in prepared.items():
            try:
                results[row] = encode_array(encoder.encode([value])[0])
            except Exception as error:
                complaints.add(start + row, values[row], error)
    else:
        for row, vector in zip(prepared, vectors, strict=True):
            results[row] = encode_array(vector)
    stdout.write(b"".join(results))
    stdout.flush()


def _scrub_environment() -> None:
    """Start anew without the server's environment, which may hold secrets."""
    if dict(os.environ) != _ENVIRONMENT:
        os.execve(sys.executable, [sys.executable, "-I", *sys.argv], _ENVIRONMENT)


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return ClickHouse's two streams, which no library can reach by their usual numbers."""
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return stdin, stdout
