"""Made-up vectors that are as hard to search as those of pictures and texts.

Clusters of clusters, of Zipf's sizes, whose spectrum falls by a power law; and a modality gap:
texts lie in another direction than images, and only weakly at their own image. Image-like queries
are drawn as rows are, text-like ones as texts are. Everything is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from laion.vectors import IMAGE, TEXT

Vectors = npt.NDArray[np.float32]

DIMENSION = 512
SUPERCLUSTERS, CLUSTERS = 300, 6000
OWN_AXES = 160
PERMUTATIONS = 64


class HardVectors:
    """Draws rows and queries, each float32 of shape (n, 512) and length 1."""

    name = "made-up vectors"
    dimension = DIMENSION
    columns = (IMAGE, TEXT)
    searched = IMAGE
    query_kinds = ("image-like", "text-like")

    def __init__(self, rows: int, queries: int, seed: int = 7) -> None:
        self.rows = rows
        random = np.random.default_rng(seed)
        axes = np.arange(DIMENSION)
        self.spectrum = _unit((axes + 6.0) ** -0.55)
        self.rotation = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))[0]
        self.rotation = self.rotation.astype(np.float32)
        image, text = random.standard_normal((2, DIMENSION)) * self.spectrum**0.3
        self.image_mean = _unit(image)
        self.text_mean = _unit(text - self.image_mean * (text @ self.image_mean) * 0.85)
        supers = random.standard_normal((SUPERCLUSTERS, DIMENSION)) * self.spectrum
        of_super = random.choice(SUPERCLUSTERS, CLUSTERS, p=_zipf(SUPERCLUSTERS, 3.0, 0.7))
        own = random.standard_normal((CLUSTERS, DIMENSION)) * self.spectrum
        centres = np.sqrt(0.45) * supers[of_super] + np.sqrt(0.55) * own
        self.centres = centres.astype(np.float32)
        self.weights = _zipf(CLUSTERS, 10.0, 0.8)
        self.scales = np.exp(random.normal(0, 0.25, CLUSTERS)).astype(np.float32)
        self.axes = np.stack([random.permutation(OWN_AXES) for _ in range(PERMUTATIONS)])
        self.own_spectrum = _unit((np.arange(OWN_AXES) + 3.0) ** -0.6).astype(np.float32)

        images, texts = self.pairs(queries, seed=10**6)
        self.queries: dict[str, Vectors] = {"image-like": images, "text-like": texts}

    def batches(self, size: int) -> Iterator[dict[str, Vectors]]:
        """Yield the vectors of rows, an image and its text."""
        for number, first in enumerate(range(0, self.rows, size)):
            images, texts = self.pairs(min(size, self.rows - first), seed=number)
            yield {IMAGE: images, TEXT: texts}

    def pairs(self, rows: int, seed: int) -> tuple[Vectors, Vectors]:
        """Return images, and the text of each."""
        random = np.random.default_rng([1, seed])
        latent = self._latent(rows, random)
        noise = random.standard_normal((rows, DIMENSION), dtype=np.float32) * self.spectrum
        images = _units((1.05 * latent + self.image_mean) @ self.rotation)
        texts = _units((0.24 * latent + 0.6 * noise + self.text_mean) @ self.rotation)
        return images, texts

    def _latent(self, rows: int, random: np.random.Generator) -> Vectors:
        """Return centres and what is around them, mostly along some axes that a cluster has."""
        cluster = random.choice(CLUSTERS, rows, p=self.weights)
        noise = random.standard_normal((rows, DIMENSION), dtype=np.float32)
        around = np.sqrt(0.2) * noise * self.spectrum
        axes = self.axes[cluster % PERMUTATIONS]
        own = np.zeros((rows, OWN_AXES), np.float32)
        np.put_along_axis(own, axes, noise[:, :OWN_AXES] * self.own_spectrum, axis=1)
        around[:, :OWN_AXES] += np.sqrt(0.8) * own
        around *= self.scales[cluster][:, None]
        latent = np.sqrt(0.55) * self.centres[cluster] + np.sqrt(0.45) * around
        return latent.astype(np.float32)


def _zipf(count: int, offset: float, exponent: float) -> npt.NDArray[np.float64]:
    weights = (np.arange(count) + offset) ** -exponent
    return weights / weights.sum()


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _units(vectors: npt.NDArray[np.float64]) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / length).astype(np.float32)
