"""The sample's model: that it was built rightly, and that it finds what it is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from laion.encoders.image import load_image_encoder
from laion.encoders.model import ModelDirectory
from laion.encoders.text import TextEncoder, load_text_encoder
from laion.errors import SampleModelMissing
from laion.sample.embeddings import model_embeddings
from laion.sample.items import SCENARIOS, SCENARIOS_PER_SUBJECT
from laion.sample.minilm import find_weights
from laion.sample.model import ensure_sample_model
from laion.sample.pictures import draw_other_pictures, write_example_pictures
from laion.sample.vocabulary import SUBJECTS


@pytest.fixture(scope="module")
def model() -> Path:
    return ensure_sample_model()


@pytest.fixture(scope="module")
def encoder(model: Path) -> TextEncoder:
    return load_text_encoder(model)


def test_the_graph_gives_the_cosines_of_the_published_model(encoder: TextEncoder) -> None:
    """The three sentences and their similarities are those of the model's card on the hub."""
    happy, very_happy, sunny = encoder.encode(
        ["That is a happy person", "That is a very happy person", "Today is a sunny day"]
    )

    assert happy @ very_happy == pytest.approx(0.943, abs=0.001)
    assert happy @ sunny == pytest.approx(0.257, abs=0.001)


def test_padding_changes_nothing(encoder: TextEncoder) -> None:
    texts = ["a cat", "a much longer text about a dog that runs along the beach"]

    together = encoder.encode(texts)

    for row, text in enumerate(texts):
        assert together[row] == pytest.approx(encoder.encode([text])[0], abs=1e-5)


def test_it_is_built_once(model: Path) -> None:
    before = (model / "manifest.json").stat().st_mtime_ns

    assert ensure_sample_model() == model
    assert (model / "manifest.json").stat().st_mtime_ns == before


def test_its_manifest_names_every_file(model: Path) -> None:
    directory = ModelDirectory.open(model)

    for name in directory.manifest.files:
        assert directory.verified(name).is_file()


def test_a_picture_finds_its_subject(model: Path) -> None:
    encoder = load_image_encoder(model)
    shown = np.arange(0, SCENARIOS, SCENARIOS_PER_SUBJECT // 2)
    pictures = draw_other_pictures(shown.tolist(), number=1)
    vectors = encoder.encode([encoder.prepare(picture) for picture in pictures])

    nearest = np.argmax(vectors @ model_embeddings(model).descriptions.T, axis=1)

    right = nearest // SCENARIOS_PER_SUBJECT == shown // SCENARIOS_PER_SUBJECT

    assert right.mean() > 0.9


def test_there_is_an_example_picture_of_each_subject(tmp_path: Path) -> None:
    write_example_pictures(tmp_path / "pictures")

    names = {path.stem for path in (tmp_path / "pictures").iterdir()}

    assert names == {subject.slug for subject in SUBJECTS}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("laion.sample.minilm.find_spec", lambda name: None)

    with pytest.raises(SampleModelMissing, match="make setup"):
        find_weights()
