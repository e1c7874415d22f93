"""A model directory of the size of CLIP ViT-B/32's text side, with random weights.

It takes the time and memory of the real one, and its vectors mean nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from laion.encoders.model import (
    MANIFEST,
    TEXT_MODEL,
    TOKENIZER,
    Manifest,
    SelfTest,
    file_sha256,
)
from laion.encoders.text import load_text_encoder
from laion.sample.minilm import Tensors, build_text_graph
from tests.models import write_clip_tokenizer

WIDTH, LAYERS, HEADS, WORDS, WINDOW = 512, 12, 8, 49_408, 77
INNER = 4 * WIDTH
_SPREAD = 0.02


def write_clip_sized_model(directory: Path) -> Path:
    """Write the model below `directory` and return it."""
    (directory / "text").mkdir(parents=True)
    graph = build_text_graph(_random_tensors(), HEADS)
    (directory / TEXT_MODEL).write_bytes(graph.SerializeToString())
    write_clip_tokenizer(directory / TOKENIZER)
    files = {name: file_sha256(directory / name) for name in (TEXT_MODEL, TOKENIZER)}
    blank = SelfTest("a cat", ())
    manifest = Manifest("clip-sized", WIDTH, WINDOW, files, blank, "random weights")
    path = directory / MANIFEST
    path.write_bytes(manifest.to_json())
    vector = tuple(load_text_encoder(directory).encode([blank.text])[0].tolist())
    path.write_bytes(replace(manifest, self_test=replace(blank, vector=vector)).to_json())
    return directory


def _random_tensors() -> Tensors:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(_SPREAD)

    tensors: Tensors = {
        "embeddings.word_embeddings.weight": draw(WORDS, WIDTH),
        "embeddings.position_embeddings.weight": draw(WINDOW, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(1, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        shapes = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        shapes |= {
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }
        for name, shape in shapes.items():
            tensors[f"{layer}.{name}.weight"] = draw(*shape)
            tensors[f"{layer}.{name}.bias"] = draw(shape[0])
    for norm in norms:
        tensors[f"{norm}.weight"] = np.ones(WIDTH, np.float32)
        tensors[f"{norm}.bias"] = draw(WIDTH)
    return tensors
