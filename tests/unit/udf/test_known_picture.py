"""A picture whose vector the manifest has shows that `encode_image` gives the model's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from laion.encoders.image import load_image_encoder
from laion.encoders.known_picture import KNOWN_PICTURE_NAME
from laion.encoders.model import (
    IMAGE_MODEL,
    MANIFEST,
    TEXT_MODEL,
    Manifest,
    ModelDirectory,
    file_sha256,
)
from laion.errors import BadModel, UdfCheckFailed
from laion.udf.checks import complete_manifest
from tests.models import DIMENSION, image_graph, save_graph, text_graph, write_manifest
from tests.unit.encoders.test_image import noise
from tests.unit.udf.target import Target


@pytest.fixture
def own_model(target: Target, tmp_path: Path) -> Target:
    """A target with a copy of the model, to be damaged."""
    target.model = Path(shutil.copytree(target.model, tmp_path / "own"))
    return target


def exchange_image_graph(target: Target, graph: onnx.ModelProto) -> None:
    """Put another graph in place; the manifest keeps its vector of the known picture."""
    save_graph(graph, target.model / IMAGE_MODEL)
    manifest = ModelDirectory.open(target.model).manifest
    files = {**manifest.files, IMAGE_MODEL: file_sha256(target.model / IMAGE_MODEL)}
    (target.model / MANIFEST).write_bytes(replace(manifest, files=files).to_json())


def deploy(target: Target) -> bool:
    return target.deploy(target.version(pictures=str(target.pictures)))


def test_it_is_encoded_on_the_server_by_a_name_that_no_picture_has(target: Target) -> None:
    deploy(target)

    found = target.client.query(
        "SELECT encode_image({name:String})", parameters={"name": KNOWN_PICTURE_NAME}
    ).result_rows[0][0]
    expected = ModelDirectory.open(target.model).manifest.picture_vector
    assert len(expected) == DIMENSION
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_graph_that_gives_no_vector_for_any_picture_is_not_deployed(own_model: Target) -> None:
    graph = image_graph(DIMENSION, seed=0)
    nothing = np.zeros_like(numpy_helper.to_array(graph.graph.initializer[0]))
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(nothing, "matrix"))
    exchange_image_graph(own_model, graph)

    with pytest.raises(UdfCheckFailed, match="encode_image gives a vector of 0 numbers"):
        deploy(own_model)
    assert own_model.files() == {}


def test_a_graph_that_gives_another_vector_is_not_deployed(own_model: Target) -> None:
    exchange_image_graph(own_model, image_graph(DIMENSION, seed=5))

    with pytest.raises(UdfCheckFailed, match="encode_image gives another vector for the known"):
        deploy(own_model)


def test_an_image_graph_that_ignores_its_input_is_refused(own_model: Target) -> None:
    graph = image_graph(DIMENSION, seed=0)
    graph.graph.node[-1].output[0] = "of_pixels"
    for node in (
        helper.make_node("Mul", ["of_pixels", "nothing"], ["silent"]),
        helper.make_node("Add", ["silent", "bias"], ["image_embeds"]),
    ):
        graph.graph.node.append(node)
    for name, value in (("nothing", 0), ("bias", 1)):
        array = np.full(DIMENSION, value, np.float32)
        graph.graph.initializer.append(numpy_helper.from_array(array, name))
    save_graph(graph, own_model.model / IMAGE_MODEL)

    with pytest.raises(BadModel, match="a picture and its negative the same vector"):
        write_manifest(own_model.model)


def test_a_text_graph_that_ignores_its_input_is_not_deployed(own_model: Target) -> None:
    graph = text_graph(DIMENSION, seed=0)
    (table,) = (each for each in graph.graph.initializer if each.name == "table")
    same = np.ones_like(numpy_helper.to_array(table))
    table.CopyFrom(numpy_helper.from_array(same, "table"))
    save_graph(graph, own_model.model / TEXT_MODEL)
    write_manifest(own_model.model)

    with pytest.raises(UdfCheckFailed, match="gives different texts the same vector"):
        deploy(own_model)


def test_a_graph_in_half_precision_works(own_model: Target) -> None:
    graph = image_graph(DIMENSION, seed=0)
    half = numpy_helper.to_array(graph.graph.initializer[0]).astype(np.float16)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(half, "matrix"))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    save_graph(graph, own_model.model / IMAGE_MODEL)
    write_manifest(own_model.model)
    noise(20, 20).save(own_model.pictures / "cat.png")

    assert deploy(own_model) is True
    assert own_model.client.command("SELECT length(encode_image('cat.png'))") == DIMENSION


def test_a_manifest_of_an_earlier_release_is_completed_by_the_model(own_model: Target) -> None:
    path = own_model.model / MANIFEST
    values = json.loads(path.read_text())
    vector = values.pop("picture_vector")
    path.write_text(json.dumps(values))
    model = ModelDirectory.open(own_model.model)
    assert model.manifest.picture_vector == ()

    assert complete_manifest(model).picture_vector == pytest.approx(vector, abs=1e-6)
    assert Manifest.parse(complete_manifest(model).to_json()) == complete_manifest(model)


def test_a_graph_that_takes_pixels_as_no_float_is_refused(model: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(model, tmp_path / "own"))
    graph = image_graph(DIMENSION, seed=0)
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    graph.graph.node[0].input[0] = "as_float"
    cast = helper.make_node("Cast", ["pixel_values"], ["as_float"], to=onnx.TensorProto.FLOAT)
    graph.graph.node.insert(0, cast)
    save_graph(graph, own / IMAGE_MODEL)
    manifest = ModelDirectory.open(own).manifest
    files = {**manifest.files, IMAGE_MODEL: file_sha256(own / IMAGE_MODEL)}
    (own / MANIFEST).write_bytes(replace(manifest, files=files).to_json())

    with pytest.raises(BadModel, match=r"takes pixels as tensor\(uint8\)"):
        load_image_encoder(own)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_manifest_whose_known_vector_is_not_finite_is_refused(
    model: Path, tmp_path: Path, value: str
) -> None:
    own = Path(shutil.copytree(model, tmp_path / "own"))
    values = json.loads((own / MANIFEST).read_text())
    values["picture_vector"][0] = float(value)
    (own / MANIFEST).write_text(json.dumps(values))

    with pytest.raises(BadModel, match="is not finite"):
        ModelDirectory.open(own)
