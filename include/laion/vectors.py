"""The vectors of a dataset's rows: one description of each."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE, TEXT = "image_embedding", "text_embedding"
"""The two that CLIP makes of a picture and of its caption, in one space."""


@dataclass(frozen=True)
class Vector:
    """A vector that every row has; the base table has it in a column of its name.

    `dimension` is None where only the files can tell. `dtype` is that of the source's files, as far
    as is known, and `model` what made it. `column` names the column of the metadata file in which
    it lies; empty when it has npy files of its own.
    """

    name: str
    dimension: int | None = None
    dtype: str = "float16"
    model: str | None = None
    column: str = ""

    @property
    def length(self) -> int:
        """Its dimension, which has been read by now."""
        assert self.dimension is not None, self.name
        return self.dimension


def clip_vectors(dimension: int | None = None) -> tuple[Vector, Vector]:
    """Return the usual two, of one dimension, in npy files of their own."""
    return Vector(IMAGE, dimension), Vector(TEXT, dimension)


Dimensions = dict[str, int]
"""The dimension of each vector by its name, in the order of a table's columns."""


def clip_dimensions(dimension: int) -> Dimensions:
    """Return the usual two as a table has them."""
    return dict.fromkeys((IMAGE, TEXT), dimension)
