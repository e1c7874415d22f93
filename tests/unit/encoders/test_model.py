"""A model's directory is used only as its manifest describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laion.encoders.image import load_image_encoder
from laion.encoders.model import (
    IMAGE_MODEL,
    MANIFEST,
    PREPROCESSOR,
    TEXT_MODEL,
    TOKENIZER,
    ModelDirectory,
    file_sha256,
)
from laion.encoders.text import load_text_encoder
from laion.encoders.vectors import to_unit_length
from laion.errors import BadModel, EncodingFailed
from tests.models import write_model


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def change_manifest(model: Path, **changes: Any) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_manifest_survives_writing_and_reading(own_model: Path) -> None:
    manifest = ModelDirectory.open(own_model).manifest

    assert manifest.to_json() == (own_model / MANIFEST).read_bytes()


def test_the_self_test_is_the_encoders_own_vector(own_model: Path) -> None:
    known = ModelDirectory.open(own_model).manifest.self_test

    assert load_text_encoder(own_model).encode([known.text])[0] == pytest.approx(known.vector)


@pytest.mark.parametrize("name", [TEXT_MODEL, TOKENIZER])
def test_an_altered_text_file_is_refused(own_model: Path, name: str) -> None:
    with (own_model / name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(BadModel, match=f"{name} is not the file that the manifest names"):
        load_text_encoder(own_model)


@pytest.mark.parametrize("name", [IMAGE_MODEL, PREPROCESSOR])
def test_an_altered_image_file_is_refused(own_model: Path, name: str) -> None:
    with (own_model / name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(BadModel, match=f"{name} is not the file that the manifest names"):
        load_image_encoder(own_model)


def test_a_missing_file_is_named(own_model: Path) -> None:
    (own_model / TEXT_MODEL).unlink()

    with pytest.raises(BadModel, match=r"text/model\.onnx cannot be read"):
        load_text_encoder(own_model)


def test_a_file_that_the_manifest_does_not_list_is_not_used(own_model: Path) -> None:
    change_manifest(own_model, files={})

    with pytest.raises(BadModel, match=r"has no text/tokenizer\.json"):
        load_text_encoder(own_model)


def test_a_directory_without_a_model_says_how_to_fetch_one(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"laion\.encoders fetch"):
        ModelDirectory.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "\x00"])
def test_a_manifest_that_is_none_is_refused(own_model: Path, text: str) -> None:
    (own_model / MANIFEST).write_text(text)

    with pytest.raises(BadModel, match="is no manifest"):
        ModelDirectory.open(own_model)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        (TEXT_MODEL, load_text_encoder),
        (TOKENIZER, load_text_encoder),
        (IMAGE_MODEL, load_image_encoder),
    ],
)
def test_a_listed_file_that_is_no_model_is_refused(own_model: Path, name: str, load: Any) -> None:
    (own_model / name).write_bytes(b"nonsense")
    files = ModelDirectory.open(own_model).manifest.files
    change_manifest(own_model, files=files | {name: file_sha256(own_model / name)})

    with pytest.raises(BadModel, match=name):
        load(own_model)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(bad: float) -> None:
    with pytest.raises(EncodingFailed):
        to_unit_length(np.array([[1, 0], [bad, bad]], np.float32))
