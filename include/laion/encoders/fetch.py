"""Fetches CLIP ViT-B/32 from the Hugging Face hub: `python -m laion.encoders fetch`.

The two ONNX exports of OpenAI's model are put into one directory, with the commits they are of
and the SHA-256 of every file. A model that does not match words and pictures is not kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi
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
    open_session,
)
from laion.encoders.text import load_text_encoder
from laion.errors import LaionError, ModelNotFetched

NAME = "clip-vit-b-32"
REPOSITORIES = {"text": "Qdrant/clip-ViT-B-32-text", "image": "Qdrant/clip-ViT-B-32-vision"}
REVISIONS = {
    "text": "48ca1db27cb4063eb311ec2aa7f087a808112876",
    "image": "e0c24ed0fa57fa3e4f97f30de74c51d944036ace",
}
SHA256 = {
    TEXT_MODEL: "4dbe762b11e36488304471e439cde89da053ad7acaddbf9e096745d142ec8d8b",
    TOKENIZER: "b68d571997a1f81bf521fb73806740ddb91e4ed6666cb6e996c066bb289cf55b",
    IMAGE_MODEL: "c68d3d9a200ddd2a8c8a5510b576d4c94d1ae383bf8b36dd8c084f94e1fb4d63",
    PREPROCESSOR: "ce945ef831c9972c135b5b198a03d8eeb70478cd69c0238f24caf1903a9965e6",
}
"""The commits that are fetched unless others are asked for, and what their files must be.

We could not reach the hub: these are the values that a dozen public projects pin for themselves;
they agree on every file.
"""
MAX_TOKENS = 77
SELF_TEST = "a sleepy ginger cat"
PAIRS = {
    "a plain red picture": (220, 20, 20),
    "a plain green picture": (20, 200, 20),
    "a plain blue picture": (20, 20, 220),
}
"""Texts, and the colours of pictures that must be nearest to them."""

_PICTURE_SIDE = 256


def fetch_model(models: Path, revisions: Mapping[str, str], endpoint: str | None = None) -> Path:
    """Fetch the model into `models`/clip-vit-b-32, in one rename; return the directory.

    `revisions` gives a branch or commit of each of REPOSITORIES; a branch is resolved to its
    commit first. Files of the commits in REVISIONS must have the digests in SHA256.
    Raises ModelNotFetched, and then nothing is left of it.
    """
    target = models / NAME
    temporary = models / f".{NAME}.{os.getpid()}.tmp"
    try:
        sources = [
            _fetch_side(HfApi(endpoint), side, revisions[side], temporary) for side in REPOSITORIES
        ]
        _write_manifest(temporary, " and ".join(sources))
        check_pairs(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
    except LaionError as error:
        raise ModelNotFetched(f"the model was not kept: {error}") from error
    except Exception as error:
        # The hub's client raises its own, requests' and OSError.
        raise ModelNotFetched(
            f"the model could not be fetched: {error}. Check the network, or set HF_ENDPOINT to a "
            "mirror of the hub."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def check_pairs(directory: Path) -> None:
    """Check that each of PAIRS belongs together for the model. Raises ModelNotFetched."""
    texts = load_text_encoder(directory).encode(list(PAIRS))
    encoder = load_image_encoder(directory)
    size = (_PICTURE_SIDE, _PICTURE_SIDE)
    pictures = [encoder.prepare(Image.new("RGB", size, colour)) for colour in PAIRS.values()]
    nearest = np.argmax(texts @ encoder.encode(pictures).T, axis=1)
    for text, found, expected in zip(PAIRS, nearest.tolist(), range(len(PAIRS)), strict=True):
        if found != expected:
            raise ModelNotFetched(
                f"for {text!r} the model prefers the picture of {list(PAIRS)[found]!r}"
            )


def _fetch_side(hub: HfApi, side: str, revision: str, directory: Path) -> str:
    """Download one side's files and compare the hub's digests; return repository and commit."""
    repository = REPOSITORIES[side]
    info = hub.model_info(repository, revision=revision, files_metadata=True)
    if info.sha is None:
        raise ModelNotFetched(f"the hub names no commit for {repository} at {revision}")
    digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    for name in (name.partition("/")[2] for name in FILES if name.startswith(f"{side}/")):
        path = Path(
            hub.hf_hub_download(
                repository, name, revision=info.sha, local_dir=directory / "download" / side
            )
        )
        found = file_sha256(path)
        expected = [digests.get(name, found)]
        if info.sha == REVISIONS[side]:
            expected.append(SHA256[f"{side}/{name}"])
        for digest in expected:
            if digest != found:
                raise ModelNotFetched(
                    f"{repository}/{name} arrived with SHA-256 {found}, expected is {digest}"
                )
        (directory / side).mkdir(parents=True, exist_ok=True)
        path.replace(directory / side / name)
    return f"{repository}@{info.sha}"


def _write_manifest(directory: Path, source: str) -> None:
    shutil.rmtree(directory / "download")
    text_model = directory / FILES[0]
    manifest = Manifest(
        name=NAME,
        dimension=int(open_session(text_model, 1).get_outputs()[0].shape[-1]),
        max_tokens=MAX_TOKENS,
        files={name: file_sha256(directory / name) for name in FILES},
        self_test=SelfTest(SELF_TEST, ()),
        source=source,
    )
    path = directory / MANIFEST
    path.write_bytes(manifest.to_json())
    vector = load_text_encoder(directory).encode([SELF_TEST])[0]
    known = SelfTest(SELF_TEST, tuple(vector.tolist()))
    picture = tuple(load_image_encoder(directory).encode_known_picture().tolist())
    path.write_bytes(replace(manifest, self_test=known, picture_vector=picture).to_json())
    ModelDirectory.open(directory)
