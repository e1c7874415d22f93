from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench.paraphrases import PARAPHRASES, RIDDLES

from laion.encoders.text import load_text_encoder
from laion.errors import SampleNotWritable
from laion.sample.dataset import (
    SHARD_ROWS,
    STAMP_NAME,
    shard_paths,
    write_dataset,
    write_shard,
)
from laion.sample.embeddings import made_up_embeddings, model_embeddings
from laion.sample.items import all_captions, all_descriptions, draw_items
from laion.sample.model import ensure_sample_model
from laion.sample.vocabulary import CATEGORIES, LOOKS, SCENES, STYLES, SUBJECTS

# Written out, not imported: what LAION's files hold is no choice of the code under test.
LAION_COLUMNS = [
    ("image_path", pa.string()),
    ("caption", pa.string()),
    ("NSFW", pa.string()),
    ("similarity", pa.float64()),
    ("LICENSE", pa.string()),
    ("url", pa.string()),
    ("key", pa.int64()),
    ("shard_id", pa.int64()),
    ("status", pa.string()),
    ("error_message", pa.null()),
    ("width", pa.int64()),
    ("height", pa.int64()),
    ("exif", pa.string()),
    ("original_width", pa.int64()),
    ("original_height", pa.int64()),
]
DIMENSION = 384
PROBES = 400


@dataclass(frozen=True)
class Sample:
    """All shards, one after the other."""

    images: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]
    metadata: pa.Table

    @property
    def subjects(self) -> npt.NDArray[np.str_]:
        return np.array([url.split("/")[3] for url in self.metadata["url"].to_pylist()])

    @property
    def captions(self) -> list[str]:
        return [text for text in self.metadata["caption"].to_pylist() if text is not None]


@pytest.fixture(scope="module")
def sample(sample_directory: Path) -> Sample:
    paths = [shard_paths(sample_directory, number) for number in range(len(SHARD_ROWS))]
    return Sample(
        images=np.concatenate([np.load(image) for image, _, _ in paths]).astype(np.float32),
        texts=np.concatenate([np.load(text) for _, text, _ in paths]).astype(np.float32),
        metadata=pa.concat_tables([pq.read_table(metadata) for _, _, metadata in paths]),
    )


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def modified(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def neighbour_precision(
    queries: npt.NDArray[np.float32],
    base: npt.NDArray[np.float32],
    subjects: npt.NDArray[np.str_],
    *,
    count: int = 10,
) -> float:
    """The share of the nearest neighbours, without the item itself, that have its subject."""
    probes = np.random.default_rng(1).choice(len(base), PROBES, replace=False)
    scores = queries[probes] @ base.T
    scores[np.arange(PROBES), probes] = -np.inf
    nearest = np.argsort(-scores, axis=1)[:, :count]
    return float(np.mean(subjects[nearest] == subjects[probes, None]))


class TestFiles:
    def test_a_second_run_writes_the_same_bytes(
        self, sample_directory: Path, tmp_path: Path
    ) -> None:
        write_dataset(tmp_path)
        assert digests(tmp_path) == digests(sample_directory)

    def test_a_shard_does_not_depend_on_the_shards_before_it(
        self, sample_directory: Path, tmp_path: Path
    ) -> None:
        embeddings = model_embeddings(ensure_sample_model())
        for number in (5, 2):
            write_shard(tmp_path, number, SHARD_ROWS[number], embeddings)
        whole = digests(sample_directory)
        assert len(digests(tmp_path)) == 6
        assert digests(tmp_path).items() <= whole.items()

    def test_another_seed_gives_other_bytes(self, tmp_path: Path) -> None:
        write_shard(tmp_path / "a", 0, 50, made_up_embeddings(8), seed=1)
        write_shard(tmp_path / "b", 0, 50, made_up_embeddings(8), seed=2)
        assert not digests(tmp_path / "a").items() & digests(tmp_path / "b").items()

    def test_there_are_eight_shards_of_different_sizes(self) -> None:
        assert len(set(SHARD_ROWS)) == len(SHARD_ROWS) == 8
        assert sum(SHARD_ROWS) == 12_000

    @pytest.mark.parametrize("number", range(len(SHARD_ROWS)))
    def test_a_shard_has_laions_files(self, sample_directory: Path, number: int) -> None:
        image, text, metadata = shard_paths(sample_directory, number)
        rows = SHARD_ROWS[number]
        for path in (image, text):
            assert path.read_bytes()[:8] == b"\x93NUMPY\x01\x00"
            vectors = np.load(path)
            assert (vectors.shape, vectors.dtype.str) == ((rows, DIMENSION), "<f2")
            assert path.stat().st_size == 128 + rows * DIMENSION * 2
        table = pq.read_table(metadata)
        assert [(field.name, field.type) for field in table.schema] == LAION_COLUMNS
        assert table.num_rows == rows

    def test_the_files_have_laions_names(self, sample_directory: Path) -> None:
        assert {path.name for path in sample_directory.iterdir()} == {
            "img_emb",
            "text_emb",
            "metadata",
            STAMP_NAME,
        }
        assert (sample_directory / "img_emb" / "img_emb_7.npy").is_file()
        assert (sample_directory / "text_emb" / "text_emb_0.npy").is_file()
        assert (sample_directory / "metadata" / "metadata_3.parquet").is_file()

    @pytest.mark.parametrize("rows", [0, 1, 5000])
    def test_any_number_of_rows_and_any_dimension_can_be_written(
        self, tmp_path: Path, rows: int
    ) -> None:
        write_shard(tmp_path, 409, rows, made_up_embeddings(24))
        image, text, metadata = shard_paths(tmp_path, 409)
        assert np.load(image).shape == np.load(text).shape == (rows, 24)
        assert pq.read_table(metadata).num_rows == rows
        assert pq.read_schema(metadata).field("error_message").type == pa.null()


class TestWriteDataset:
    def test_does_nothing_when_the_sample_is_there(self, tmp_path: Path) -> None:
        assert write_dataset(tmp_path, (20, 10)) is True
        before = modified(tmp_path)
        assert write_dataset(tmp_path, (20, 10)) is False
        assert modified(tmp_path) == before

    def test_writes_other_rows_anew_and_removes_left_over_shards(self, tmp_path: Path) -> None:
        write_dataset(tmp_path, (20, 10, 5))
        assert write_dataset(tmp_path, (20, 11)) is True
        assert np.load(shard_paths(tmp_path, 1)[0]).shape[0] == 11
        assert not any(path.exists() for path in shard_paths(tmp_path, 2))

    @pytest.mark.parametrize("stamp", [b"", b"[]", b'{"shard_rows": 3}', b'{"version": 0}'])
    def test_writes_anew_when_the_stamp_says_something_else(
        self, tmp_path: Path, stamp: bytes
    ) -> None:
        write_dataset(tmp_path, (20,))
        (tmp_path / STAMP_NAME).write_bytes(stamp)
        assert write_dataset(tmp_path, (20,)) is True
        assert write_dataset(tmp_path, (20,)) is False

    def test_writes_anew_when_a_file_is_missing(self, tmp_path: Path) -> None:
        write_dataset(tmp_path, (20, 10))
        shard_paths(tmp_path, 1)[2].unlink()
        assert write_dataset(tmp_path, (20, 10)) is True
        assert shard_paths(tmp_path, 1)[2].is_file()

    def test_an_interrupted_write_leaves_no_stamp_and_no_temporary_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        write_dataset(tmp_path, (20,))
        with monkeypatch.context() as patch:
            patch.setattr("laion.sample.dataset._cosines", interrupt)
            with pytest.raises(KeyboardInterrupt):
                write_dataset(tmp_path, (30,))
        assert not (tmp_path / STAMP_NAME).exists()
        assert not list(tmp_path.rglob(".*"))
        assert write_dataset(tmp_path, (20,)) is True

    def test_names_a_directory_it_cannot_write(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(SampleNotWritable, match="file/below"):
            write_dataset(tmp_path / "file" / "below", (20,))
        with pytest.raises(SampleNotWritable, match="file/below"):
            write_shard(tmp_path / "file" / "below", 0, 20, made_up_embeddings(8))


class TestEmbeddings:
    def test_vectors_have_unit_length(self, sample: Sample) -> None:
        for side in (sample.images, sample.texts):
            assert np.abs(np.linalg.norm(side, axis=1) - 1).max() < 3e-4

    def test_image_and_text_of_a_row_are_near_each_other(self, sample: Sample) -> None:
        own = np.sum(sample.images * sample.texts, axis=1)
        others = np.sum(sample.images * np.roll(sample.texts, 1, axis=0), axis=1)
        assert own.mean() > others.mean() + 0.25
        assert np.mean(own > others) > 0.9

    def test_nearest_images_share_the_subject(self, sample: Sample) -> None:
        assert neighbour_precision(sample.images, sample.images, sample.subjects) >= 0.9

    def test_nearest_texts_share_the_subject(self, sample: Sample) -> None:
        assert neighbour_precision(sample.texts, sample.texts, sample.subjects) >= 0.8

    def test_images_nearest_to_a_text_share_its_subject(self, sample: Sample) -> None:
        """Some captions are in other languages, or only a blank: those say little to the model."""
        assert neighbour_precision(sample.texts, sample.images, sample.subjects) >= 0.7

    def test_a_text_vector_is_what_the_encoder_gives_for_the_caption(self, sample: Sample) -> None:
        encoder = load_text_encoder(ensure_sample_model())
        captions = sample.metadata["caption"].to_pylist()
        rows = [row for row in range(0, len(captions), 600) if captions[row] is not None]
        encoded = encoder.encode([captions[row] for row in rows])
        assert np.sum(encoded * sample.texts[rows], axis=1).min() > 0.999

    def test_subjects_of_one_category_are_nearer_than_others(self, sample: Sample) -> None:
        category_of = {subject.slug: subject.category for subject in SUBJECTS}
        subjects = sample.subjects[:2000]
        categories = np.array([category_of[subject] for subject in subjects])
        cosines = sample.images[:2000] @ sample.images[:2000].T
        same_category = categories[:, None] == categories
        same_subject = subjects[:, None] == subjects
        related = cosines[same_category & ~same_subject].mean()
        assert related > cosines[~same_category].mean() + 0.05
        assert related < cosines[same_subject].mean() - 0.1

    def test_made_up_vectors_go_by_subject_too(self) -> None:
        embeddings = made_up_embeddings(32)
        items = draw_items(0, 500)
        images = embeddings.of_images(items.scenarios, np.random.default_rng(0))
        own = np.sum(images * embeddings.of_captions(items.captions), axis=1)
        assert images.shape == (500, 32)
        assert own.mean() > 0.7


class TestMetadata:
    def test_similarity_follows_the_vectors_of_its_own_row_only(self, sample: Sample) -> None:
        similarity = np.array(sample.metadata["similarity"].to_pylist(), dtype=float)
        known = ~np.isnan(similarity)
        aligned = np.sum(sample.images * sample.texts, axis=1)
        shifted = np.sum(sample.images * np.roll(sample.texts, 1, axis=0), axis=1)
        assert np.corrcoef(similarity[known], aligned[known])[0, 1] > 0.9
        assert abs(np.corrcoef(similarity[known], shifted[known])[0, 1]) < 0.1
        assert np.std(similarity[known] - aligned[known]) == pytest.approx(0.01, rel=0.1)

    @pytest.mark.parametrize("column", ["caption", "NSFW", "LICENSE", "similarity"])
    def test_about_one_cell_in_a_hundred_is_null(self, sample: Sample, column: str) -> None:
        share = sample.metadata[column].null_count / sample.metadata.num_rows
        assert share == pytest.approx(0.01, abs=0.002)

    def test_no_other_column_holds_nulls(self, sample: Sample) -> None:
        with_nulls = {
            name for name in sample.metadata.column_names if sample.metadata[name].null_count
        }
        assert with_nulls == {"caption", "NSFW", "LICENSE", "similarity", "error_message"}

    def test_flags_and_licenses_take_laions_values(self, sample: Sample) -> None:
        assert set(sample.metadata["NSFW"].to_pylist()) == {"UNLIKELY", "UNSURE", "NSFW", None}
        assert {"?", "CC-BY"} <= set(sample.metadata["LICENSE"].to_pylist())

    def test_urls_are_unique_and_keys_are_not(self, sample: Sample) -> None:
        urls = sample.metadata["url"].to_pylist()
        assert len(set(urls)) == len(urls)
        assert all(url.startswith("https://sample.invalid/") for url in urls)
        assert len(set(sample.metadata["key"].to_pylist())) < len(urls) / 2

    def test_exif_holds_json_objects(self, sample: Sample) -> None:
        assert all(
            isinstance(json.loads(text), dict) for text in sample.metadata["exif"].to_pylist()
        )
        assert len(set(sample.metadata["exif"].to_pylist())) > 1


class TestCaptions:
    @pytest.mark.parametrize(
        "part",
        ['"', "'", ",", "\n", "\r\n", "\t", "\\", "\\N", "😍", "&amp;", "&#8211;", "--", "{", "“"],
    )
    def test_hold_what_loaders_stumble_over(self, sample: Sample, part: str) -> None:
        assert sum(part in caption for caption in sample.captions) > 10

    @pytest.mark.parametrize(
        ("first", "last"),
        [
            pytest.param("\u3040", "\u30ff", id="Kana"),
            pytest.param("\u4e00", "\u9fff", id="Han"),
            pytest.param("\u0600", "\u06ff", id="Arabic"),
            pytest.param("\u0400", "\u04ff", id="Cyrillic"),
            pytest.param("\u0900", "\u097f", id="Devanagari"),
            pytest.param("\u0370", "\u03ff", id="Greek"),
        ],
    )
    def test_hold_other_scripts(self, sample: Sample, first: str, last: str) -> None:
        found = sum(any(first <= letter <= last for letter in text) for text in sample.captions)
        assert found > 50

    def test_hold_blanks_at_either_end(self, sample: Sample) -> None:
        assert any(caption.startswith(" ") for caption in sample.captions)
        assert any(caption.endswith(" ") for caption in sample.captions)

    def test_hold_empty_and_long_ones(self, sample: Sample) -> None:
        assert "" in sample.captions
        assert 10 < sum(len(caption) >= 1000 for caption in sample.captions) < 500

    def test_descriptions_use_other_words(self) -> None:
        items = draw_items(0, 200)
        subjects = [SUBJECTS[index] for index in items.subjects.tolist()]
        descriptions = items.description_texts()
        assert all(s.alias in text for s, text in zip(subjects, descriptions, strict=True))
        assert not set(all_descriptions()) & set(all_captions())

    def test_are_few_enough_to_embed_them_all(self) -> None:
        assert len(set(all_captions()) | set(all_descriptions())) < 6000


class TestVocabulary:
    def test_names_are_unique_plain_and_translated(self) -> None:
        names = [subject.name for subject in SUBJECTS]
        assert len(set(names)) == len(names) == 60
        assert all(name.isascii() for name in names)
        assert all(all(subject.foreign) and len(subject.foreign) >= 3 for subject in SUBJECTS)
        assert len(CATEGORIES) == 6

    def test_no_alias_repeats_the_name(self) -> None:
        pairs = [(word.name, f"{word.alias}, {word.meaning}") for word in SUBJECTS]
        looks = [look for words in LOOKS.values() for look in words]
        pairs += [(word.name, word.alias) for word in (*SCENES, *STYLES, *looks)]
        assert not [name for name, alias in pairs if name in alias]

    @pytest.mark.parametrize("questions", [PARAPHRASES, RIDDLES], ids=["paraphrases", "riddles"])
    def test_questions_of_the_benchmark_use_other_words(
        self, questions: tuple[tuple[str, str], ...]
    ) -> None:
        subjects = {subject.name: subject for subject in SUBJECTS}
        known = {
            name: words_of(f"{name}, {subject.alias}, {subject.meaning}")
            for name, subject in subjects.items()
        }

        assert len(set(questions)) == 100
        assert {name for name, _ in questions} == set(subjects)
        assert not [text for name, text in questions if words_of(text) & known[name]]


def words_of(text: str) -> set[str]:
    """Its words but the smallest ones."""
    small = "a an and at by for from in is it its of on one or out over that the to two up with"
    return set(re.findall(r"[a-z]+", text.lower())) - {*small.split(), "around", "under", "s"}
