"""A model's directory: what is in it, and proof that it is what was put there."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime

from laion.encoders.vectors import Vectors
from laion.errors import BadModel, EncodingFailed

FORMAT = 1
MANIFEST = "manifest.json"
TEXT_MODEL = "text/model.onnx"
TOKENIZER = "text/tokenizer.json"
IMAGE_MODEL = "image/model.onnx"
PREPROCESSOR = "image/preprocessor_config.json"
FILES = (TEXT_MODEL, TOKENIZER, IMAGE_MODEL, PREPROCESSOR)

_CHUNK_BYTES = 1 << 20
_LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class SelfTest:
    """A text and the unit vector that the model gave for it when the manifest was written."""

    text: str
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says; `files` maps paths in the directory to SHA-256 digests.

    `picture_vector` is the unit vector that the model gave for the known picture when the manifest
    was written; empty in older manifests, and where there is no image encoder.
    """

    name: str
    dimension: int
    max_tokens: int
    files: dict[str, str]
    self_test: SelfTest
    source: str
    picture_vector: tuple[float, ...] = ()
    format: int = FORMAT

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a manifest. Raises ValueError, KeyError or TypeError for anything else."""
        values: dict[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']}, not {FORMAT}")
        known = values["self_test"]
        test = SelfTest(str(known["text"]), _vector(known["vector"]))
        picture = _vector(values.get("picture_vector", []))
        return cls(**{**values, "self_test": test, "picture_vector": picture})

    def to_json(self) -> bytes:
        """Return the file's bytes; the same manifest always gives the same."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"


@dataclass(frozen=True)
class ModelDirectory:
    """A model on disk whose manifest was read."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the manifest of the model in `path`. Raises BadModel."""
        try:
            return cls(path, Manifest.parse((path / MANIFEST).read_bytes()))
        except OSError as error:
            raise BadModel(
                f"there is no model in {path}: {MANIFEST} cannot be read ({error.strerror}). "
                "Fetch one with `python -m laion.encoders fetch`."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadModel(f"{path / MANIFEST} is no manifest of a model: {error!r}") from error

    def verified(self, name: str) -> Path:
        """Return the path of a file after comparing its SHA-256. Raises BadModel."""
        expected = self.manifest.files.get(name)
        if expected is None:
            raise BadModel(f"the model {self.manifest.name!r} in {self.path} has no {name}")
        try:
            found = file_sha256(self.path / name)
        except OSError as error:
            raise BadModel(
                f"{self.path / name} cannot be read ({error.strerror}); fetch the model again"
            ) from error
        if found != expected:
            raise BadModel(
                f"{self.path / name} is not the file that the manifest names: its SHA-256 is "
                f"{found}, expected is {expected}; fetch the model again"
            )
        return self.path / name


def _vector(values: list[float]) -> tuple[float, ...]:
    vector = tuple(float(value) for value in values)
    if not all(map(math.isfinite, vector)):
        raise ValueError("a vector in it is not finite")
    return vector


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load an ONNX graph for CPU with so many threads. Raises BadModel."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Threads that wait for the next call must not burn the CPU that ClickHouse needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # ONNX Runtime raises a dozen private types.
        raise BadModel(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    _return_freed_memory()
    return session


def choose_output(session: onnxruntime.InferenceSession, preferred: str) -> str:
    """Return the output `preferred` if the graph has it, else its first one."""
    names: Sequence[str] = [output.name for output in session.get_outputs()]
    return preferred if preferred in names else names[0]


def run_graph(
    session: onnxruntime.InferenceSession, output: str, feeds: dict[str, Any], dimension: int
) -> Vectors:
    """Return an output for a batch of inputs, float32 (rows, dimension). Raises EncodingFailed."""
    rows = len(next(iter(feeds.values())))
    try:
        vectors = np.asarray(session.run([output], feeds)[0], np.float32)
    except Exception as error:
        # ONNX Runtime raises a dozen private types.
        raise EncodingFailed(f"the model does not run: {error}") from error
    if vectors.shape != (rows, dimension):
        raise EncodingFailed(
            f"the model's output {output} has the shape {vectors.shape} for {rows} inputs, not "
            f"{(rows, dimension)}"
        )
    return vectors


def _return_freed_memory() -> None:
    """Give back what loading took and freed, a fifth of a process that then lives for days."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
