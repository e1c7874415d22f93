"""Calls the functions and compares what comes back with what the model is known to give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median

from laion.clickhouse.client import Client, typed_errors
from laion.clickhouse.schema import read_identity
from laion.clickhouse.statements import statement
from laion.encoders.image import load_image_encoder
from laion.encoders.known_picture import KNOWN_PICTURE_NAME
from laion.encoders.model import IMAGE_MODEL, Manifest, ModelDirectory
from laion.errors import ClickHouseError, ClickHouseUnreachable, UdfCheckFailed
from laion.vectors import TEXT

MIN_COSINE = 0.999
"""Between a known vector here and there: other CPUs round otherwise."""
MIN_CAPTION_COSINE = 0.95
"""Median over stored rows, whose vectors are float16 and were made by another program."""
ONE_VECTOR = 0.99999
"""At which two texts have the same vector, but for rounding."""
MAX_LENGTH_ERROR = 1e-3
CAPTIONS = 32

Vector = list[float]


@dataclass(frozen=True)
class Expectation:
    """What the functions must do. `table` holds captions with vectors of the model, or is None."""

    manifest: Manifest
    functions: tuple[str, ...]
    pool_size: int
    table: str | None = None


def complete_manifest(model: ModelDirectory) -> Manifest:
    """Return a model's manifest with its vector of the known picture.

    Manifests that an earlier release has written lack it; then it is what the model gives here.
    Raises BadModel, EncodingFailed.
    """
    manifest = model.manifest
    if manifest.picture_vector or IMAGE_MODEL not in manifest.files:
        return manifest
    vector = load_image_encoder(model.path).encode_known_picture()
    return replace(manifest, picture_vector=tuple(vector.tolist()))


def check_functions(client: Client, expected: Expectation) -> None:
    """Call every function in every process of its pool, which also warms it up.

    Raises UdfCheckFailed, saying which answer was not as expected, ClickHouseUnreachable.
    """
    if "encode_text" in expected.functions:
        known = expected.manifest.self_test
        # Twice, and with other texts around it: what a worker answers too much shifts what follows.
        texts = ["", known.text, "another text"]
        for _ in range(2):
            for vectors in _call_all_processes(client, "encode_text", texts, expected.pool_size):
                for vector in vectors:
                    _check_vector("encode_text", vector, expected.manifest.dimension)
                _check_known("encode_text", repr(known.text), vectors[1], known.vector)
                if _cosine(vectors[1], vectors[2]) >= ONE_VECTOR:
                    raise UdfCheckFailed("encode_text gives different texts the same vector.")
    if "encode_image" in expected.functions:
        names = ["", KNOWN_PICTURE_NAME, ""]
        for _ in range(2):
            for vectors in _call_all_processes(client, "encode_image", names, expected.pool_size):
                if vectors[0] or vectors[2]:
                    raise UdfCheckFailed(
                        "encode_image gives a vector for a picture without a name."
                    )
                _check_vector("encode_image", vectors[1], expected.manifest.dimension)
                known_vector = expected.manifest.picture_vector
                _check_known("encode_image", "the known picture", vectors[1], known_vector)
    if expected.table is not None and "encode_text" in expected.functions:
        _check_agreement(client, expected.table, expected.manifest)


def _check_agreement(client: Client, table: str, manifest: Manifest) -> None:
    """The text vectors of the table must come from this model."""
    dimension = read_identity(client, table).vectors.get(TEXT)
    if dimension != manifest.dimension:
        raise UdfCheckFailed(
            f"table {table} has vectors of {dimension} numbers, the model {manifest.name!r} gives "
            f"{manifest.dimension}; the dataset was made with another model."
        )
    try:
        with typed_errors(f"encode captions of {table}"):
            rows = client.query(
                statement("encode_captions", table=table), parameters={"limit": CAPTIONS}
            ).result_rows
    except ClickHouseUnreachable:  # That says nothing of the functions.
        raise
    except ClickHouseError as error:
        raise UdfCheckFailed(f"{error}.") from error
    cosines = [_cosine(list(stored), list(encoded)) for stored, encoded in rows]
    if cosines and median(cosines) < MIN_CAPTION_COSINE:
        raise UdfCheckFailed(
            f"encode_text does not give the text vectors of table {table}: the median cosine of "
            f"{len(cosines)} captions is {median(cosines):.3f}, not above {MIN_CAPTION_COSINE}. "
            f"The dataset was made with another model than {manifest.name!r}."
        )


def _call_all_processes(
    client: Client, function: str, texts: list[str], pool_size: int
) -> list[list[Vector]]:
    """Call a function as often at once as it has processes."""

    def call(_: int) -> list[Vector]:
        with typed_errors(f"call {function}"):
            rows = client.query(
                statement("call_function", function=function), parameters={"values": texts}
            ).result_rows
        return [list(row[0]) for row in rows]

    try:
        with ThreadPoolExecutor(pool_size) as threads:
            answers = list(threads.map(call, range(pool_size)))
    except ClickHouseUnreachable:  # That says nothing of the functions.
        raise
    except ClickHouseError as error:
        raise UdfCheckFailed(
            f"{function} cannot be called: {error}. The server's log says more; often there is no "
            "Python where LAION_UDF_PYTHON says, or it lacks onnxruntime, tokenizers, Pillow or "
            "numpy, or it cannot read the model."
        ) from error
    if any(len(vectors) != len(texts) for vectors in answers):
        raise UdfCheckFailed(f"{function} answers another number of rows than it is asked.")
    return answers


def _check_vector(function: str, vector: Vector, dimension: int) -> None:
    length = math.sqrt(sum(value * value for value in vector))
    # Not `>`: nothing is larger than NaN, nor smaller.
    if len(vector) != dimension or not abs(length - 1) <= MAX_LENGTH_ERROR:
        raise UdfCheckFailed(
            f"{function} gives a vector of {len(vector)} numbers and length {length:.4f}, not of "
            f"{dimension} and 1."
        )


def _check_known(function: str, what: str, vector: Vector, known: Sequence[float]) -> None:
    cosine = _cosine(vector, known)
    if not cosine >= MIN_COSINE:
        raise UdfCheckFailed(
            f"{function} gives another vector for {what} than the model: their cosine is "
            f"{cosine:.4f}."
        )


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    if len(left) != len(right):
        return 0.0
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    lengths = math.hypot(*left) * math.hypot(*right)
    return dot / lengths if lengths else 0.0
