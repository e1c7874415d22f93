"""The vectors of the sample's texts: from its text model, or made up where any numbers do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from laion.encoders.model import ModelDirectory
from laion.encoders.text import load_text_encoder
from laion.encoders.vectors import Vectors, to_unit_length
from laion.errors import SampleNotWritable
from laion.sample.items import (
    SCENARIOS,
    SCENARIOS_PER_SUBJECT,
    SEED,
    Indices,
    Stream,
    all_captions,
    all_descriptions,
    all_meanings,
    caption_scenarios,
    generator,
)
from laion.sample.vocabulary import SUBJECTS

IMAGE_NOISE_LENGTHS = (0.15, 0.45)
"""No two pictures of the same thing are the same."""

_MEANING_WEIGHT = 2
"""Of what a subject is, beside its name and a description: what found most of RIDDLES (bench)."""
_SCENARIO_WEIGHT = 0.35
_MADE_UP_NOISE = 0.3


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors of `all_captions()` and of what is described, float32 (texts, dimension).

    What is described is each of `all_descriptions()` together with its subject's name and meaning.
    """

    captions: Vectors
    descriptions: Vectors

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return int(self.captions.shape[1])

    def of_images(self, scenarios: Indices, random: np.random.Generator) -> Vectors:
        """Return vectors of pictures of these scenarios, each with noise of its own."""
        vectors = self.descriptions[scenarios]
        rows, dimension = vectors.shape
        lengths = random.uniform(*IMAGE_NOISE_LENGTHS, size=(rows, 1)) / np.sqrt(dimension)
        noise = random.standard_normal((rows, dimension), dtype=np.float32)
        return to_unit_length(vectors + lengths.astype(np.float32) * noise)

    def of_captions(self, captions: Indices) -> Vectors:
        """Return the vectors of these captions, just as the model gives them."""
        return self.captions[captions]


def model_embeddings(model: Path) -> Embeddings:
    """Return what the text encoder of the model in `model` gives for every text of the sample.

    They are computed once and then kept in a file beside the model. Raises BadModel,
    SampleNotWritable.
    """
    captions, descriptions, meanings = all_captions(), all_descriptions(), all_meanings()
    names = [subject.name for subject in SUBJECTS]
    manifest = ModelDirectory.open(model).manifest
    digest = hashlib.sha256(manifest.to_json())
    digest.update("\0".join((*captions, *descriptions, *meanings, *names)).encode())
    digest.update(str(_MEANING_WEIGHT).encode())
    kept = model.with_name(f"{model.name}-embeddings-{digest.hexdigest()[:12]}.npz")
    try:
        with np.load(kept) as file:
            return Embeddings(file["captions"], file["descriptions"])
    except (OSError, ValueError, KeyError):
        encoder = load_text_encoder(model)
        told = encoder.encode(descriptions)
        # A picture shows more than one wording says: the thing itself, whatever it is called.
        shown = _MEANING_WEIGHT * encoder.encode(meanings) + encoder.encode(names)
        meant = np.repeat(shown, SCENARIOS_PER_SUBJECT, axis=0)
        found = Embeddings(encoder.encode(captions), to_unit_length(told + meant))
        temporary = kept.with_suffix(".tmp.npz")
        try:
            np.savez(temporary, captions=found.captions, descriptions=found.descriptions)
            temporary.replace(kept)
        except OSError as error:
            raise SampleNotWritable(f"Cannot write {kept}: {error.strerror}.") from error
        return found


def made_up_embeddings(dimension: int) -> Embeddings:
    """Return vectors that no model made, of any dimension, for tests and benchmarks.

    A text's vector is a random one of its subject, with less of one of its scenario and of itself.
    """
    random = generator(SEED, dimension, Stream.TEXT_NOISE)

    def draw(rows: int) -> Vectors:
        return to_unit_length(random.standard_normal((rows, dimension)).astype(np.float32))

    subjects = np.repeat(draw(len(SUBJECTS)), SCENARIOS_PER_SUBJECT, axis=0)
    shown = subjects + np.float32(_SCENARIO_WEIGHT) * draw(SCENARIOS)
    told = shown[list(caption_scenarios())]
    return Embeddings(
        captions=to_unit_length(told + np.float32(_MADE_UP_NOISE) * draw(len(told))),
        descriptions=to_unit_length(shown),
    )
