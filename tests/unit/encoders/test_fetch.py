"""Fetching a model, from a stand-in of the Hugging Face hub's HTTP interface on this machine.

The real hub was never asked by these tests; `CLIP_MODEL_DIR` may name a model that was fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from PIL import Image

from laion.encoders.fetch import (
    NAME,
    PAIRS,
    REPOSITORIES,
    REVISIONS,
    SHA256,
    check_pairs,
    fetch_model,
)
from laion.encoders.model import IMAGE_MODEL, PREPROCESSOR, TEXT_MODEL, ModelDirectory
from laion.encoders.preprocess import Preprocessor
from laion.encoders.text import load_text_encoder
from laion.errors import ModelNotFetched
from tests.models import DIMENSION, image_graph, save_graph, write_manifest, write_model

COMMITS = {"text": "a" * 40, "image": "b" * 40}
NEWEST = {"text": "main", "image": "main"}


@dataclass
class Hub:
    """Answers as the hub does for two repositories; `lies` are digests that it gives wrongly."""

    directory: Path
    url: str = ""
    commits: dict[str, str] = field(default_factory=lambda: COMMITS)
    lies: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(path)
        for side, repository in REPOSITORIES.items():
            if path.split("?")[0] in {
                f"/api/models/{repository}/revision/{revision}"
                for revision in ("main", self.commits[side])
            }:
                return 200, {"Content-Type": "application/json"}, self._info(side)
            prefix = f"/{repository}/resolve/{self.commits[side]}/"
            if path.startswith(prefix):
                content = (self.directory / side / path.removeprefix(prefix)).read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                return 200, {"X-Repo-Commit": self.commits[side], "ETag": etag}, content
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""

    def _info(self, side: str) -> bytes:
        siblings = []
        for path in sorted((self.directory / side).iterdir()):
            content = path.read_bytes()
            digest = self.lies.get(path.name, hashlib.sha256(content).hexdigest())
            lfs = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append({"rfilename": path.name, "size": len(content), "lfs": lfs})
        repository = REPOSITORIES[side]
        info = {"id": repository, "modelId": repository, "sha": self.commits[side]}
        return json.dumps(info | {"siblings": siblings}).encode()


@pytest.fixture(scope="module")
def matching_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose picture side was solved for the pairs of the self-test."""
    directory = write_model(tmp_path_factory.mktemp("matching"))
    texts = load_text_encoder(directory).encode(list(PAIRS))
    preprocessor = Preprocessor.read(directory / PREPROCESSOR)
    colours = [Image.new("RGB", (99, 99), colour) for colour in PAIRS.values()]
    pixels = np.stack([preprocessor.prepare(colour).ravel() for colour in colours])
    graph = image_graph(DIMENSION, 0)
    matrix = np.linalg.lstsq(pixels, texts, rcond=None)[0].astype(np.float32)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(matrix, "matrix"))
    save_graph(graph, directory / IMAGE_MODEL)
    write_manifest(directory)
    return directory


@pytest.fixture
def hub(matching_model: Path) -> Iterator[Hub]:
    hub = Hub(matching_model)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_fetched_by_commit_and_verified(hub: Hub, tmp_path: Path) -> None:
    directory = fetch_model(tmp_path, NEWEST, hub.url)

    manifest = ModelDirectory.open(directory).manifest
    assert directory == tmp_path / NAME
    assert (manifest.dimension, manifest.max_tokens) == (DIMENSION, 77)
    assert all(f"{REPOSITORIES[side]}@{COMMITS[side]}" in manifest.source for side in COMMITS)
    assert all(ModelDirectory.open(directory).verified(name) for name in manifest.files)
    assert not [path for path in hub.requests if "/resolve/main/" in path]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert load_text_encoder(directory).encode(["a cat"]).shape == (1, DIMENSION)


def test_a_file_with_another_digest_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.lies["tokenizer.json"] = "0" * 64

    with pytest.raises(ModelNotFetched, match=r"tokenizer\.json arrived with SHA-256"):
        fetch_model(tmp_path, NEWEST, hub.url)
    assert list(tmp_path.iterdir()) == []


def test_a_pinned_commit_must_have_the_pinned_files(hub: Hub, tmp_path: Path) -> None:
    """Whatever the hub itself says of them."""
    hub.commits = REVISIONS

    with pytest.raises(ModelNotFetched, match=f"expected is {SHA256[TEXT_MODEL]}"):
        fetch_model(tmp_path, REVISIONS, hub.url)
    assert f"/{REPOSITORIES['text']}/resolve/{REVISIONS['text']}/model.onnx" in hub.requests
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_revision_is_an_error(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFetched, match="could not be fetched"):
        fetch_model(tmp_path, {**NEWEST, "text": "c" * 40}, hub.url)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_matches_no_pairs_is_not_kept(
    hub: Hub, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hub.directory = write_model(tmp_path_factory.mktemp("random"), seed=5)
    turned = image_graph(DIMENSION, 0)
    save_graph(turned, hub.directory / IMAGE_MODEL)

    with pytest.raises(ModelNotFetched, match="the model prefers the picture of"):
        fetch_model(tmp_path, NEWEST, hub.url)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_model_stays_when_fetching_fails(hub: Hub, tmp_path: Path) -> None:
    directory = fetch_model(tmp_path, NEWEST, hub.url)
    hub.lies["model.onnx"] = "0" * 64

    with pytest.raises(ModelNotFetched):
        fetch_model(tmp_path, NEWEST, hub.url)
    assert ModelDirectory.open(directory).verified(TEXT_MODEL).is_file()


@pytest.mark.skipif("CLIP_MODEL_DIR" not in os.environ, reason="CLIP_MODEL_DIR names no model")
def test_the_real_model_matches_words_and_pictures() -> None:
    directory = Path(os.environ["CLIP_MODEL_DIR"])

    check_pairs(directory)
    cat, kitten, car = load_text_encoder(directory).encode(
        ["a photo of a cat", "a photo of a kitten", "a photo of a sports car"]
    )
    assert cat @ kitten > cat @ car
