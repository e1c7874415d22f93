"""Do images, texts and metadata belong together row by row?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from laion.checks import AlignmentCheck, VectorCheck
from laion.errors import Misaligned
from tests.fuzzing import EXAMPLES
from tests.shard_files import read_metadata, read_vectors, write_little_shard

ROWS = 2048
BATCH_ROWS = 1500

Array = npt.NDArray[Any]


def add_rows(check: AlignmentCheck, images: Array, texts: Array, similarity: Array) -> None:
    vectors = VectorCheck()
    lengths = vectors.add("image_embedding", 0, images) * vectors.add("text_embedding", 0, texts)
    check.add(images, texts, lengths, similarity)


@dataclass
class Rows:
    """The rows of an aligned shard."""

    images: Array
    texts: Array
    similarity: Array

    def verdict(self) -> str:
        return self.check().verdict()

    def check(self) -> AlignmentCheck:
        check = AlignmentCheck()
        for start in range(0, len(self.images), BATCH_ROWS):
            batch = slice(start, start + BATCH_ROWS)
            add_rows(check, self.images[batch], self.texts[batch], self.similarity[batch])
        return check


def rows_of_sample(directory: Path, rows: int = ROWS, shard: int = 0) -> Rows:
    write_little_shard(directory, shard, rows)
    return Rows(
        read_vectors(directory, "image_embedding", shard),
        read_vectors(directory, "text_embedding", shard),
        read_metadata(directory, shard)["similarity"].to_numpy(),
    )


@pytest.fixture
def sample(tmp_path: Path) -> Rows:
    return rows_of_sample(tmp_path)


def shift_texts(rows: Rows) -> None:
    rows.texts = np.roll(rows.texts, 1, axis=0)


def reverse_metadata(rows: Rows) -> None:
    rows.similarity = rows.similarity[::-1]


class TestAlignment:
    def test_no_shift_is_described_by_more_than_a_whole_correlation(self, tmp_path: Path) -> None:
        rows = rows_of_sample(tmp_path, 3000)
        rows.similarity = np.roll(rows.similarity, 1001)

        found = rows.check().correlations()

        assert found.best_shift() == 1001
        assert 0.9 < found.r(1001) <= 1

    def test_a_sound_shard_is_aligned(self, sample: Rows) -> None:
        assert sample.verdict() == "aligned"

    @pytest.mark.parametrize("damage", [shift_texts, reverse_metadata])
    def test_rows_that_do_not_fit_are_noticed(
        self, sample: Rows, damage: Callable[[Rows], None]
    ) -> None:
        damage(sample)

        assert sample.verdict() == "unclear"

    @pytest.mark.parametrize("rows", [1000, ROWS, 120_000])
    @pytest.mark.parametrize("shift", [-2, -1, 1, 2])
    def test_metadata_moved_by_a_row_or_two_are_misaligned(self, rows: int, shift: int) -> None:
        cosines = likely_cosines(rows)
        check = check_of(cosines, np.roll(cosines, shift))

        assert check.verdict() == "misaligned"
        assert check.correlations().misaligned_by() == shift

    @pytest.mark.parametrize("shift", [-4096, -1000, 3, 100, 2001])
    def test_metadata_moved_by_many_rows_are_misaligned(self, shift: int) -> None:
        cosines = likely_cosines(10_000)

        assert check_of(cosines, np.roll(cosines, shift)).correlations().misaligned_by() == shift

    def test_rows_that_are_moved_from_some_row_on_are_misaligned_when_they_are_nearly_all(
        self,
    ) -> None:
        cosines = likely_cosines(10_000)
        stated = np.concatenate([cosines[:1000], cosines[1001:], cosines[:1]])

        assert check_of(cosines, stated).correlations().misaligned_by() == -1

    @pytest.mark.parametrize("odd", [1e6, 30.0, -1e300])
    def test_no_single_similarity_decides(self, odd: float) -> None:
        cosines = likely_cosines(ROWS)
        right, wrong = cosines.copy(), np.roll(cosines, 1)
        right[7] = wrong[7] = odd

        assert check_of(cosines, right).verdict() == "aligned"
        assert check_of(cosines, wrong).verdict() == "misaligned"

    @pytest.mark.parametrize(
        ("placeholder", "share"),
        [(np.nan, 0.2), (np.nan, 0.6), (-1.0, 0.2), (0.0, 0.2), (99.0, 0.2)],
    )
    def test_similarities_that_are_not_known_hide_nothing(
        self, placeholder: float, share: float
    ) -> None:
        cosines = likely_cosines(20_000)
        unknown = np.random.default_rng(2).random(len(cosines)) < share
        stated = np.where(unknown, placeholder, cosines)

        assert check_of(cosines, stated).verdict() == "aligned"
        assert check_of(cosines, np.roll(stated, 1)).verdict() == "misaligned"

    def test_no_single_long_vector_decides(self, sample: Rows) -> None:
        sample.images[0] *= 3e4
        sample.similarity[0] = 1e6

        assert sample.verdict() == "aligned"

    @pytest.mark.parametrize("noise_std", [0.05, 0.1])
    def test_similarities_from_another_run_of_the_model_are_no_alarm(
        self, sample: Rows, noise_std: float
    ) -> None:
        sample.similarity = sample.similarity + np.random.default_rng(1).normal(0, noise_std, ROWS)

        assert sample.verdict() == "aligned"

    @pytest.mark.parametrize("rows", [1000, 1002, 1003, 1100])
    @pytest.mark.parametrize("shard", range(4))
    def test_a_shard_barely_long_enough_to_be_judged_is_no_alarm(
        self, tmp_path: Path, rows: int, shard: int
    ) -> None:
        sample = rows_of_sample(tmp_path, rows, shard)
        sample.similarity = np.einsum("ij,ij->i", sample.images, sample.texts)

        assert sample.verdict() == "aligned"

    def test_without_similarities_nothing_is_known(self, sample: Rows) -> None:
        sample.similarity = np.full(ROWS, np.nan)

        assert sample.verdict() == "unknown"

    def test_with_similarities_all_equal_nothing_is_known(self, sample: Rows) -> None:
        sample.similarity = np.full(ROWS, 0.3)

        assert sample.verdict() == "unknown"

    def test_under_a_thousand_rows_nothing_is_known(self, tmp_path: Path) -> None:
        assert rows_of_sample(tmp_path, 999).verdict() == "unknown"

    def test_bad_vectors_do_not_count(self, sample: Rows) -> None:
        sample.images[5] = np.nan
        sample.texts[6] = np.inf

        assert sample.verdict() == "aligned"

    def test_similarities_that_are_not_finite_do_not_count(self, sample: Rows) -> None:
        sample.similarity = sample.similarity.astype(np.float32)
        known = np.isfinite(sample.similarity)
        known[5:9] = False
        sample.similarity[[5, 6, 7]] = [np.inf, -np.inf, np.nan]
        signalling_nan = 0x7F800001
        sample.similarity.view(np.uint32)[8] = signalling_nan

        assert sample.verdict() == "aligned"
        assert sample.check().correlations().rows(0) == known.sum()

    def test_the_verdict_does_not_depend_on_the_batches(self, sample: Rows) -> None:
        whole = AlignmentCheck()
        add_rows(whole, sample.images, sample.texts, sample.similarity)

        assert whole.correlations().r(0) == pytest.approx(sample.check().correlations().r(0))
        assert whole.correlations().rows(0) == sample.check().correlations().rows(0)

    def test_unclear_only_fails_when_strict(self, sample: Rows) -> None:
        shift_texts(sample)
        check = sample.check()

        assert check.judge("shard 00001", strict=False) == "unclear"
        with pytest.raises(Misaligned, match=r"shard 00001: rank correlation .*strict_alignment"):
            check.judge("shard 00001", strict=True)

    def test_misaligned_fails_unless_it_is_accepted(self) -> None:
        cosines = likely_cosines(ROWS)
        check = check_of(cosines, np.roll(cosines, 1))

        with pytest.raises(Misaligned, match=r"shard 00001: .*moved by -1 rows.*accept_misaligned"):
            check.judge("shard 00001", strict=False)
        assert check.judge("shard 00001", strict=True, accept_misaligned=True) == "misaligned"

    @pytest.mark.parametrize("similarity", [None, np.full(ROWS, np.nan)])
    def test_a_sound_or_unknown_shard_passes_when_strict(
        self, sample: Rows, similarity: Array | None
    ) -> None:
        if similarity is not None:
            sample.similarity = similarity

        assert sample.check().judge("shard 00001", strict=True) in ("aligned", "unknown")


RNG = np.random.default_rng(20)
RIGHT_SHARDS = EXAMPLES or 1000


def likely_cosines(rows: int) -> Array:
    return np.random.default_rng(1).normal(0.3, 0.05, rows)


def check_of(cosines: Array, stated: Array) -> AlignmentCheck:
    """Return the check of a shard whose vectors have these cosines."""
    cosines = np.clip(cosines, -1, 1)
    images = np.tile(np.array([1, 0], np.float32), (len(cosines), 1))
    texts = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    check = AlignmentCheck()
    add_rows(check, images, texts, stated)
    return check


def measured_again(cosines: Array) -> Array:
    """Return the cosines as another run of the model gives them, more or less alike."""
    return cosines + RNG.normal(0, RNG.choice([0.001, 0.01, 0.1, 0.5]), len(cosines))


def with_spikes(values: Array) -> Array:
    spiked = values.copy()
    spiked[RNG.integers(0, len(values), RNG.integers(1, 6))] = 0.9
    return spiked


def wander(rows: int) -> Array:
    steps = np.cumsum(RNG.normal(0, 1, rows))
    return 0.3 + 0.05 * steps / np.abs(steps).max()


def repeated(cosines: Array, times: int) -> Array:
    return np.repeat(cosines, times)[: len(cosines)]


def sorted_by_similarity(cosines: Array) -> tuple[Array, Array]:
    stated = measured_again(cosines)
    order = np.argsort(stated)[:: RNG.choice([-1, 1])]
    return cosines[order], stated[order]


RIGHT: dict[str, Callable[[Array], tuple[Array, Array]]] = {
    "as LAION's": lambda c: (c, measured_again(c)),
    "constant": lambda c: (c, np.full(len(c), 0.3)),
    "constant but for a few": lambda c: (with_spikes(c), with_spikes(np.full(len(c), 0.3))),
    "rounded to tenths": lambda c: (c, np.round(measured_again(c), 1)),
    "rounded to whole numbers": lambda c: (c, np.round(measured_again(c))),
    "sorted": sorted_by_similarity,
    "absent": lambda c: (c, np.full(len(c), np.nan)),
    "mostly absent": lambda c: (c, np.where(RNG.random(len(c)) < 0.9, np.nan, c)),
    "of something else": lambda c: (c, RNG.normal(0.3, 0.05, len(c))),
    "of two captions a picture": lambda c: (repeated(c, 2), measured_again(repeated(c, 2))),
    "of groups alike": lambda c: (repeated(c, 50), measured_again(repeated(c, 50))),
    "slowly changing": lambda c: (wander(len(c)), wander(len(c))),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_no_right_shard_is_misaligned(kind: str) -> None:
    """Of RIGHT_SHARDS in all; `FUZZ_EXAMPLES=10000` tries that many."""
    for _ in range(RIGHT_SHARDS // len(RIGHT)):
        rows = int(RNG.choice([1000, 1001, 1500, 3000, 10_000]))
        check = check_of(*RIGHT[kind](RNG.normal(0.3, 0.05, rows)))

        assert check.verdict() != "misaligned", check.describe()
