"""Vectors as the encoders return them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from laion.errors import EncodingFailed

Vectors = npt.NDArray[np.float32]


def to_unit_length(vectors: Vectors) -> Vectors:
    """Return the rows at length 1. Raises EncodingFailed for a zero or non-finite row."""
    lengths = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise EncodingFailed("the model gave a vector that is zero or not finite")
    unit: Vectors = (vectors / lengths).astype(np.float32)
    return unit
