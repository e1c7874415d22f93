"""What a right shard looks like: counts that agree, vectors of unit length, rows that belong
together."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from laion.errors import BadVectors, Misaligned, RowCountMismatch, TooManyRows
from laion.shards import ROWS_PER_SHARD_LIMIT, Alignment

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
FloatArray = npt.NDArray[np.floating[Any]]

NORM_TOLERANCE = 1e-3
"""Real float16 files of this kind have norms between 0.9997 and 1.0003."""

NORMS_OFF_LIMIT = 0.001
"""Share of a shard's rows whose norm may be off before the shard fails."""

ALIGNMENT_MIN_ROWS = 1000
ALIGNMENT_BLOCK_ROWS = 50_000
MAX_SHIFT = ALIGNMENT_BLOCK_ROWS // 2
ALIGNMENT_CLEAR_SIGMAS = 6.0
"""By how many standard errors (1/sqrt(rows)) the aligned correlation must stand out."""
MISALIGNED_MIN_R = 0.3
MISALIGNED_MARGIN = 0.1
MISALIGNED_SIGMAS = 8.0
"""What a shift must reach, and by how much it must beat its rivals: at least, in standard errors.
Of 10,000 right shards whose similarities are constant, rounded, sorted or unrelated to the cosine,
none does (tests/unit/test_alignment.py); of 1,000 rows that are off by one, every shard does."""


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

    def add(self, column: str, first_row: int, vectors: Float32Array) -> Float32Array:
        """Take in vectors (n, dimension) of one column and return their lengths, (n,).

        `first_row` is their first row. A length is NaN, infinite or 0 where the vector is bad.
        """
        # A sum of squares is finite and positive exactly when the vector is usable: a float16
        # or unit-length float32 component cannot overflow it.
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", vectors, vectors)
            usable = np.isfinite(squares) & (squares > 0)
            lengths: Float32Array = np.sqrt(squares)
            off = usable & (np.abs(lengths - 1) > NORM_TOLERANCE)
        if not usable.all():
            self.bad += int((~usable).sum())
            if self.first_bad is None:
                self.first_bad = (column, first_row + int(np.argmin(usable)))
        self._rows[column] += len(vectors)
        self._norms_off[column] += int(off.sum())
        return lengths

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
class AlignmentCheck:
    """Judges whether images, texts and metadata belong together row by row.

    `similarity` is the cosine of image and text as the dataset's makers measured it, in another
    run of the model. Where rows are aligned it correlates with the cosine computed here, and
    much less so when shifted by a few rows. Ranks are correlated, in blocks of
    ALIGNMENT_BLOCK_ROWS, so that no single row decides, nor a value that stands for "unknown".
    All shifts up to half a block are looked at. Memory does not grow with the rows.
    """

    _cosines: list[Float64Array] = field(default_factory=list)
    _stated: list[Float64Array] = field(default_factory=list)
    _sums: Correlations = field(default_factory=lambda: Correlations.nothing())

    def add(
        self, images: Float32Array, texts: Float32Array, lengths: Float32Array, stated: FloatArray
    ) -> None:
        """Take in consecutive rows: two (n, dimension) arrays of vectors, the (n,) products of
        their lengths, and the (n,) similarities."""
        with np.errstate(all="ignore"):
            cosines = np.einsum("ij,ij->i", images, texts) / lengths
            self._cosines.append(cosines.astype(np.float64))
            self._stated.append(stated.astype(np.float64))
        if sum(map(len, self._cosines)) >= ALIGNMENT_BLOCK_ROWS:
            self._sums = self.correlations()
            self._cosines, self._stated = [], []

    def correlations(self) -> Correlations:
        """Return how the cosines correlate with the similarities of rows further on."""
        if not self._cosines:
            return self._sums
        cosines, stated = np.concatenate(self._cosines), np.concatenate(self._stated)
        return self._sums.plus(Correlations.of(cosines, stated))

    def verdict(self) -> Alignment:
        """Return what the rows taken in so far show."""
        found = self.correlations()
        if found.rows(0) < ALIGNMENT_MIN_ROWS:
            return Alignment.UNKNOWN
        if found.misaligned_by():
            return Alignment.MISALIGNED
        margin = ALIGNMENT_CLEAR_SIGMAS / math.sqrt(found.rows(0))
        best = found.best_shift()
        is_clear = found.r(0) > max(found.r(best) if best else 0.0, 0.0) + margin
        return Alignment.ALIGNED if is_clear else Alignment.UNCLEAR

    def judge(self, label: str, *, strict: bool, accept_misaligned: bool = False) -> Alignment:
        """Return the verdict.

        Raises Misaligned on MISALIGNED unless that is accepted, on UNCLEAR when `strict`.
        """
        verdict = self.verdict()
        if verdict is Alignment.MISALIGNED and not accept_misaligned:
            shift = self.correlations().misaligned_by()
            raise Misaligned(
                f"{label}: {self.describe()}. The metadata fit the vectors clearly better when "
                f"moved by {-shift:+,} rows, so captions and URLs would belong to other pictures. "
                "Fetch the shard again, or from another source. If you know that the files belong "
                "together as they are, run with accept_misaligned."
            )
        if verdict is Alignment.UNCLEAR and strict:
            raise Misaligned(
                f"{label}: {self.describe()}. Images, texts and metadata do not seem to belong "
                "together row by row; fetch the shard again, or run without strict_alignment."
            )
        return verdict

    def describe(self) -> str:
        """Return the correlations in one line, for the log."""
        found = self.correlations()
        best = found.best_shift()
        return (
            f"rank correlation of cos(image, text) with `similarity` over {found.rows(0):,} rows "
            f"is {found.r(0):.3f}; the best of other shifts is {best:+,} rows with "
            f"{found.r(best):.3f}"
        )


@dataclass(frozen=True)
class Correlations:
    """Correlations of two series at every shift up to MAX_SHIFT rows, as sums over blocks.

    `products` are sums of products of standardized ranks, `counts` the pairs of rows in them, both
    float64 (2 · MAX_SHIFT + 1,); the middle is shift 0.
    """

    products: Float64Array
    counts: Float64Array

    @classmethod
    def nothing(cls) -> Self:
        return cls(np.zeros(2 * MAX_SHIFT + 1), np.zeros(2 * MAX_SHIFT + 1))

    @classmethod
    def of(cls, ours: Float64Array, theirs: Float64Array) -> Self:
        """Correlate each row of `ours` with the row of `theirs` that lies a shift further on.

        Of a block of which one side does not vary, nothing is counted.
        """
        left, right = _standardized_ranks(ours), _standardized_ranks(theirs)
        if not left.any() or not right.any():
            return cls.nothing()
        products = _sum_at_shifts(left, right)
        counts = _sum_at_shifts(np.isfinite(ours) * 1.0, np.isfinite(theirs) * 1.0)
        return cls(products, np.rint(counts))

    def plus(self, other: Correlations) -> Correlations:
        return Correlations(self.products + other.products, self.counts + other.counts)

    def rows(self, shift: int) -> int:
        """Return how many pairs of rows are known at a shift."""
        return int(self.counts[MAX_SHIFT + shift])

    def r(self, shift: int) -> float:
        """Return the correlation at a shift; NaN where no pair is known."""
        rows = self.rows(shift)
        if not rows:
            return math.nan
        # Ranks are of all rows; those of a part of them can vary more.
        return min(1.0, max(-1.0, float(self.products[MAX_SHIFT + shift]) / rows))

    def best_shift(self) -> int:
        """Return the shift other than 0 with the highest correlation over half of the rows."""
        # Over a handful of rows any correlation is large: a shift that leaves few does not count.
        enough = self.counts >= max(ALIGNMENT_MIN_ROWS, self.rows(0)) / 2
        enough[MAX_SHIFT] = False
        with np.errstate(all="ignore"):
            by_shift = np.where(enough, self.products / self.counts, -np.inf)
        return int(np.argmax(by_shift)) - MAX_SHIFT if enough.any() else 0

    def misaligned_by(self) -> int:
        """Return how many rows the second series lies too late (below 0: early); 0 if it does not.

        Its shift must explain the whole clearly better than 0 and, as data that change slowly
        from row to row resemble themselves at any shift, than the shifts beside it.
        """
        best = self.best_shift()
        margin = max(MISALIGNED_MARGIN, MISALIGNED_SIGMAS / math.sqrt(max(1, self.rows(0))))
        rivals = [self.r(shift) for shift in (0, best - 1, best + 1) if abs(shift) <= MAX_SHIFT]
        limit = max([MISALIGNED_MIN_R, *(r + margin for r in rivals if not math.isnan(r))])
        return best if best and self.r(best) > limit else 0


def _standardized_ranks(values: Float64Array) -> Float64Array:
    """Return ranks of mean 0 and variance 1, equal ones for equal values; 0 where not finite."""
    known = np.isfinite(values)
    ranks = np.zeros(len(values))
    if known.any():
        _, places, counts = np.unique(values[known], return_inverse=True, return_counts=True)
        if len(counts) > 1:
            middles = np.cumsum(counts) - (counts - 1) / 2
            found = middles[places]
            ranks[known] = (found - found.mean()) / found.std()
    return ranks


def _sum_at_shifts(left: Float64Array, right: Float64Array) -> Float64Array:
    """Return the sums of left[i] * right[i + shift] for shifts of -MAX_SHIFT to MAX_SHIFT."""
    size = 1 << (len(left) + MAX_SHIFT).bit_length()
    spectrum = np.conj(np.fft.rfft(left, size)) * np.fft.rfft(right, size)
    sums = np.fft.irfft(spectrum, size)
    return np.concatenate([sums[-MAX_SHIFT:], sums[: MAX_SHIFT + 1]])
