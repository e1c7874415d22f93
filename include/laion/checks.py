"""What a right shard looks like: counts that agree, vectors of unit length, rows that belong
together."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from laion.errors import BadVectors, Misaligned, RowCountMismatch, TooManyRows
from laion.shards import ROWS_PER_SHARD_LIMIT

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.floating[Any]]

NORM_TOLERANCE = 1e-3
"""Real float16 files of this kind have norms between 0.9997 and 1.0003."""

NORMS_OFF_LIMIT = 0.001
"""Share of a shard's rows whose norm may be off before the shard fails."""

ALIGNMENT_SHIFTS = (-1000, -2, -1, 1, 2, 1000)
ALIGNMENT_MIN_ROWS = 1000
ALIGNMENT_CLEAR_SIGMAS = 6.0
"""By how many standard errors (1/sqrt(rows)) the aligned correlation must stand out."""


def check_row_counts(label: str, counts: dict[str, int], expected: int | None) -> int:
    """Return the row count that all of `counts` agree on, or raise RowCountMismatch."""
    if expected is not None:
        counts = {**counts, "the dataset's manifest": expected}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {rows:,}" for name, rows in counts.items())
        raise RowCountMismatch(
            f"{label}: row counts differ: {listed}. Rows belong together by position, so a file "
            "is incomplete or from another shard: fetch the shard again."
        )
    rows = next(iter(counts.values()))
    if rows == 0:
        raise RowCountMismatch(f"{label}: the files hold no rows")
    if rows > ROWS_PER_SHARD_LIMIT:
        raise TooManyRows(
            f"{label}: {rows:,} rows; ids are reserved for {ROWS_PER_SHARD_LIMIT:,} per shard, so "
            "split the shard"
        )
    return rows


@dataclass
class VectorCheck:
    """Counts vectors that are unusable (zero or not finite) or not of unit length.

    A row whose two vectors are bad counts twice; `rows` and the limit are of one column.
    """

    bad: int = 0
    first_bad: tuple[str, int] | None = None
    _rows: Counter[str] = field(default_factory=Counter)
    _norms_off: Counter[str] = field(default_factory=Counter)

    @property
    def norms_off(self) -> int:
        """How many vectors are not of unit length, over all columns."""
        return self._norms_off.total()

    def add(self, column: str, first_row: int, vectors: Float32Array) -> None:
        """Take in vectors (n, dimension) of one column; `first_row` is their first row."""
        # A sum of squares is finite and positive exactly when the vector is usable: a float16
        # or unit-length float32 component cannot overflow it.
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", vectors, vectors)
            usable = np.isfinite(squares) & (squares > 0)
            off = usable & (np.abs(np.sqrt(squares) - 1) > NORM_TOLERANCE)
        if not usable.all():
            self.bad += int((~usable).sum())
            if self.first_bad is None:
                self.first_bad = (column, first_row + int(np.argmin(usable)))
        self._rows[column] += len(vectors)
        self._norms_off[column] += int(off.sum())

    def judge(self, label: str, max_bad_vectors: int) -> None:
        """Raise BadVectors when the shard has more bad vectors than it may."""
        if self.bad > max_bad_vectors and self.first_bad is not None:
            column, row = self.first_bad
            raise BadVectors(
                f"{label}: {self.bad:,} vectors are zero or not finite (the first: {column}, row "
                f"{row:,}), {max_bad_vectors:,} are allowed. Fetch the shard from another source, "
                "or allow them with the param max_bad_vectors."
            )
        for column, off in self._norms_off.items():
            if off > NORMS_OFF_LIMIT * self._rows[column]:
                raise BadVectors(
                    f"{label}: {off:,} of {self._rows[column]:,} vectors of {column} are not of "
                    f"unit length (±{NORM_TOLERANCE}). Are these embeddings normalised?"
                )


@dataclass
class _Correlation:
    """Pearson's r of two streams, from running sums."""

    n: int = 0
    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))

    def add(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        self.n += len(x)
        self.sums += (x.sum(), y.sum(), x @ x, y @ y, x @ y)

    @property
    def r(self) -> float:
        if self.n < 2:
            return math.nan
        x, y, xx, yy, xy = self.sums / self.n
        spread = (xx - x * x) * (yy - y * y)
        return float((xy - x * y) / math.sqrt(spread)) if spread > 1e-18 else math.nan


@dataclass
class AlignmentCheck:
    """Judges whether images, texts and metadata belong together row by row.

    `similarity` is the cosine of image and text as the dataset's makers measured it, in another
    run of the model. Where rows are aligned it correlates with the cosine computed here, and
    much less so when shifted by a few rows. Sums are kept per batch: no memory grows with rows.
    """

    aligned: _Correlation = field(default_factory=_Correlation)
    shifted: dict[int, _Correlation] = field(
        default_factory=lambda: {shift: _Correlation() for shift in ALIGNMENT_SHIFTS}
    )

    def add(self, images: Float32Array, texts: Float32Array, similarity: FloatArray) -> None:
        """Take in consecutive rows: two (n, dimension) arrays and the (n,) similarities."""
        with np.errstate(over="ignore", invalid="ignore"):
            cosine = np.einsum("ij,ij->i", images, texts).astype(np.float64)
            stated = similarity.astype(np.float64)
        self.aligned.add(cosine, stated)
        for shift, correlation in self.shifted.items():
            if abs(shift) < len(cosine):
                ours = cosine[max(0, -shift) : len(cosine) - max(0, shift)]
                theirs = stated[max(0, shift) : len(stated) - max(0, -shift)]
                correlation.add(ours, theirs)

    def verdict(self) -> str:
        """Return 'aligned', 'unclear', or 'unknown' when too few similarities are known."""
        r = self.aligned.r
        if self.aligned.n < ALIGNMENT_MIN_ROWS or math.isnan(r):
            return "unknown"
        # Over a handful of rows any correlation is large: a shift that leaves few does not count.
        others = [c.r for c in self.shifted.values() if c.n >= self.aligned.n / 2]
        others = [r for r in others if not math.isnan(r)]
        margin = ALIGNMENT_CLEAR_SIGMAS / math.sqrt(self.aligned.n)
        return "aligned" if r > max(others, default=0.0) + margin else "unclear"

    def judge(self, label: str, *, strict: bool) -> str:
        """Return the verdict; raise Misaligned on 'unclear' when `strict`."""
        verdict = self.verdict()
        if verdict == "unclear" and strict:
            raise Misaligned(
                f"{label}: {self.describe()}. Images, texts and metadata do not seem to belong "
                "together row by row; fetch the shard again, or run without strict_alignment."
            )
        return verdict

    def describe(self) -> str:
        """Return the correlations in one line, for the log."""
        shifted = ", ".join(f"{s:+d}: {c.r:.3f}" for s, c in sorted(self.shifted.items()))
        return (
            f"correlation of cos(image, text) with `similarity` over {self.aligned.n:,} rows is "
            f"{self.aligned.r:.3f}; shifted by rows {shifted}"
        )
