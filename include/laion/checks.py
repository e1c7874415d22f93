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
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]

NORM_TOLERANCE = 1e-3
"""Real float16 files of this kind have norms between 0.9997 and 1.0003."""

NORMS_OFF_LIMIT = 0.001
"""Share of a shard's rows whose norm may be off before the shard fails."""

ALIGNMENT_OTHERS = (-1000, -2, -1, 1, 2, 1000)
"""Shifts that a shard is compared at, in rows."""
ALIGNMENT_SHIFTS = tuple(sorted({0, *(s + d for s in ALIGNMENT_OTHERS for d in (-1, 0, 1))}))
"""These, 0, and the shifts beside them."""
ALIGNMENT_MIN_ROWS = 1000
ALIGNMENT_BLOCK_ROWS = 50_000
ALIGNMENT_CLEAR_SIGMAS = 6.0
"""By how many standard errors (1/sqrt(rows)) the aligned correlation must stand out."""
MISALIGNED_MIN_R = 0.3
MISALIGNED_MARGIN = 0.1
MISALIGNED_SIGMAS = 8.0
"""What a shift must reach, and by how much it must beat its rivals: at least, in standard errors.
Of 10,000 right shards whose similarities are constant, rounded, sorted or unrelated to the cosine,
none does (tests/unit/test_alignment.py); of 1,000 rows that are off by one, every shard does."""
CLIPPED_SHARE = 0.01
MIN_VARIANCE = 1e-12


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


@dataclass(frozen=True)
class Correlation:
    """Pearson's r over so many rows; NaN where either side does not vary."""

    rows: int
    r: float


@dataclass
class AlignmentCheck:
    """Judges whether images, texts and metadata belong together row by row.

    `similarity` is the cosine of image and text as the dataset's makers measured it, in another
    run of the model. Where rows are aligned it correlates with the cosine computed here, and
    much less so when shifted by a few rows. Both are clipped to their middle 98 %, in blocks of
    ALIGNMENT_BLOCK_ROWS, so that no single row decides; what is kept does not grow with a block's
    vectors.
    """

    _cosines: list[Float64Array] = field(default_factory=list)
    _stated: list[Float64Array] = field(default_factory=list)
    _blocks: list[dict[int, Correlation]] = field(default_factory=list)

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
            self._blocks.append(self._correlate_block())
            self._cosines, self._stated = [], []

    def correlations(self) -> dict[int, Correlation]:
        """Return the correlation of the cosines with the similarities of rows further on.

        By the shift in rows, 0 for the rows as they lie: the mean over the blocks in which both
        vary, weighted by rows.
        """
        blocks = [*self._blocks, self._correlate_block()] if self._cosines else self._blocks
        found = {}
        for shift in ALIGNMENT_SHIFTS:
            known = [block[shift] for block in blocks if not math.isnan(block[shift].r)]
            rows = sum(block.rows for block in known)
            weighted = sum(block.rows * block.r for block in known)
            found[shift] = Correlation(rows, weighted / rows if rows else math.nan)
        return found

    def misaligned_by(self) -> int:
        """Return how many rows the metadata lie too late (or, below 0, too early); 0 if none.

        Another shift must explain the whole shard clearly better than 0 and, as data that change
        slowly from row to row resemble themselves at any shift, than the shifts beside it.
        """
        found = self.correlations()
        margin = max(MISALIGNED_MARGIN, MISALIGNED_SIGMAS / math.sqrt(max(1, found[0].rows)))
        for shift in sorted(ALIGNMENT_OTHERS, key=abs):
            rivals = [found[other] for other in (0, shift - 1, shift + 1)]
            if found[shift].rows < max(ALIGNMENT_MIN_ROWS, found[0].rows) / 2:
                continue
            best = max((rival.r for rival in rivals if not math.isnan(rival.r)), default=0.0)
            if found[shift].r > max(MISALIGNED_MIN_R, best + margin):
                return shift
        return 0

    def verdict(self) -> str:
        """Return 'aligned', 'misaligned', 'unclear', or 'unknown': too few similarities, or all
        alike."""
        found = self.correlations()
        aligned = found[0]
        if aligned.rows < ALIGNMENT_MIN_ROWS:
            return "unknown"
        if self.misaligned_by():
            return "misaligned"
        # Over a handful of rows any correlation is large: a shift that leaves few does not count.
        others = [found[s].r for s in ALIGNMENT_OTHERS if found[s].rows >= aligned.rows / 2]
        margin = ALIGNMENT_CLEAR_SIGMAS / math.sqrt(aligned.rows)
        return "aligned" if aligned.r > max(others, default=0.0) + margin else "unclear"

    def judge(self, label: str, *, strict: bool, accept_misaligned: bool = False) -> str:
        """Return the verdict.

        Raises Misaligned on 'misaligned' unless that is accepted, on 'unclear' when `strict`.
        """
        verdict = self.verdict()
        if verdict == "misaligned" and not accept_misaligned:
            raise Misaligned(
                f"{label}: {self.describe()}. The metadata fit the vectors clearly better when "
                f"moved by {-self.misaligned_by():+,} rows, so captions and URLs would belong to "
                "other pictures. Fetch the shard again, or from another source. If you know that "
                "the files belong together as they are, run with accept_misaligned."
            )
        if verdict == "unclear" and strict:
            raise Misaligned(
                f"{label}: {self.describe()}. Images, texts and metadata do not seem to belong "
                "together row by row; fetch the shard again, or run without strict_alignment."
            )
        return verdict

    def describe(self) -> str:
        """Return the correlations in one line, for the log."""
        found = self.correlations()
        shifted = ", ".join(f"{s:+,d}: {found[s].r:.3f}" for s in ALIGNMENT_OTHERS)
        return (
            f"correlation of cos(image, text) with `similarity` over {found[0].rows:,} rows is "
            f"{found[0].r:.3f}; with that of rows further on {shifted}"
        )

    def _correlate_block(self) -> dict[int, Correlation]:
        cosines, stated = np.concatenate(self._cosines), np.concatenate(self._stated)
        known = np.isfinite(cosines) & np.isfinite(stated)
        cosines, stated = _centred(cosines, known), _centred(stated, known)
        return {shift: _correlate(cosines, stated, known, shift) for shift in ALIGNMENT_SHIFTS}


def _centred(values: Float64Array, known: BoolArray) -> Float64Array:
    """Return values clipped to their middle 98 %, less their mean; 0 where they are not known."""
    if not known.any():
        return np.zeros(len(values))
    low, high = np.quantile(values[known], (CLIPPED_SHARE, 1 - CLIPPED_SHARE))
    clipped = np.clip(np.where(known, values, low), low, high)
    return np.where(known, clipped - clipped[known].mean(), 0)


def _correlate(
    ours: Float64Array, theirs: Float64Array, known: BoolArray, shift: int
) -> Correlation:
    """Correlate each row of `ours` with the row of `theirs` that lies `shift` rows further on."""
    rows = len(ours)
    here = slice(max(0, -shift), max(0, rows - max(0, shift)))
    there = slice(max(0, shift), max(0, rows - max(0, -shift)))
    both = known[here] & known[there]
    ours, theirs = ours[here] * both, theirs[there] * both
    count = int(both.sum())
    spread = _dot(ours, ours) * _dot(theirs, theirs)
    # Values that differ by no more than rounding do not vary.
    varies = spread > (count * MIN_VARIANCE) ** 2
    return Correlation(count, _dot(ours, theirs) / math.sqrt(spread) if varies else math.nan)


def _dot(left: Float64Array, right: Float64Array) -> float:
    # Not by BLAS, whose threads cost more here than they save.
    return float(np.einsum("i,i->", left, right))
