"""The image encoder: prepare, run, bring to unit length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from laion.encoders.known_picture import open_known_picture
from laion.encoders.model import (
    IMAGE_MODEL,
    PREPROCESSOR,
    ModelDirectory,
    choose_output,
    open_session,
    run_graph,
)
from laion.encoders.preprocess import Pixels, Preprocessor
from laion.encoders.vectors import Vectors, to_unit_length
from laion.errors import BadModel

MAX_BATCH_ROWS = 8
ONE_VECTOR = 0.99999
"""A cosine at which two pictures have the same vector, but for rounding."""
PIXEL_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""What graphs take pixels as; exports in half precision take float16."""


class ImageEncoder:
    """Holds the loaded model. Use `load_image_encoder`."""

    def __init__(self, directory: ModelDirectory, threads: int) -> None:
        self._path = directory.path
        self.dimension = directory.manifest.dimension
        self._preprocessor = Preprocessor.read(directory.verified(PREPROCESSOR))
        self._session = open_session(directory.verified(IMAGE_MODEL), threads)
        self._output = choose_output(self._session, "image_embeds")
        pixels = self._session.get_inputs()[0]
        if pixels.type not in PIXEL_TYPES:
            raise BadModel(
                f"{directory.path / IMAGE_MODEL} takes pixels as {pixels.type}; graphs that take "
                f"{' or '.join(PIXEL_TYPES)} can be used"
            )
        self._input, self._dtype = pixels.name, PIXEL_TYPES[pixels.type]

    def prepare(self, image: Image.Image) -> Pixels:
        """Return an RGB picture as the model's input, float32 (3, side, side)."""
        return self._preprocessor.prepare(image)

    def encode(self, images: Sequence[Pixels]) -> Vectors:
        """Return the unit vectors of prepared pictures, float32 (len(images), dimension).

        Raises EncodingFailed when the model does not run, or gives no direction for a picture.
        """
        vectors = np.empty((len(images), self.dimension), np.float32)
        for start in range(0, len(images), MAX_BATCH_ROWS):
            batch = np.stack(images[start : start + MAX_BATCH_ROWS]).astype(self._dtype, copy=False)
            feeds = {self._input: batch}
            vectors[start : start + len(batch)] = run_graph(
                self._session, self._output, feeds, self.dimension
            )
        return to_unit_length(vectors)

    def encode_known_picture(self) -> Vectors:
        """Return the unit vector of the known picture, (dimension,).

        Raises BadModel when its negative has the same vector, EncodingFailed.
        """
        picture = open_known_picture()
        pictures = (picture, ImageOps.invert(picture))
        known, negative = self.encode([self.prepare(each) for each in pictures])
        if known @ negative >= ONE_VECTOR:
            raise BadModel(
                f"{self._path / IMAGE_MODEL} gives a picture and its negative the same vector; the "
                "graph does not look at its input"
            )
        vector: Vectors = known
        return vector


def load_image_encoder(path: Path, threads: int = 2) -> ImageEncoder:
    """Load the image encoder of the model in `path`, checking its files. Raises BadModel."""
    return ImageEncoder(ModelDirectory.open(path), threads)
