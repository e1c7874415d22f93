"""The sample dataset: some 12,000 made-up rows in LAION's own files.

    img_emb/img_emb_N.npy       float16, (rows, 512), unit length
    text_emb/text_emb_N.npy     float16, (rows, 512), unit length
    metadata/metadata_N.parquet the 15 columns of LAION-400M

Row i of the three files belongs together by position only, as in the original. The bytes depend
on the shard's number, its rows, the dimension and the seed, and on nothing else.

The embedding model is a bag of concepts. Every subject, category, scene and style has a fixed
random unit vector, drawn from a generator seeded with its name. The vector of a text is the sum
of the concepts it stands for, weighted by `WEIGHTS`, plus noise of the item's own, brought to unit
length. The text side embeds the caption, the image side a second, differently worded description
that is not stored. So the sides share most concepts and differ in noise and in what the caption
leaves out; the subject weighs most, and subjects of one category lie nearer to each other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from laion.errors import SampleNotWritable
from laion.sample.vocabulary import (
    CAPTION_FORMS,
    CATEGORIES,
    DESCRIPTION_FORMS,
    ODD_CAPTION_FORMS,
    PLAIN_CAPTION_FORMS,
    SCENES,
    STYLES,
    SUBJECTS,
)

SHARD_ROWS: tuple[int, ...] = (2048, 1777, 1999, 1500, 1024, 1301, 613, 1738)
DIMENSION = 512
SEED = 400

# Raised by hand whenever the same arguments would give other bytes.
VERSION = 1
STAMP_NAME = "sample.json"

WEIGHTS = {"subject": 1.0, "category": 0.5, "scene": 0.35, "style": 0.25}
NOISE_LENGTHS = (0.3, 0.85)
SIMILARITY_NOISE_STD = 0.01

METADATA_SCHEMA = pa.schema(
    [
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
)

_BLOCK_ROWS = 4096
_URLS_PER_SHARD = 10_000_000
_KEYS_PER_DOWNLOAD = 1000
_SLOTS = 100

_NSFW = ("UNLIKELY", "UNSURE", "NSFW")
_NSFW_SHARES = (0.95, 0.035, 0.015)
_LICENSES = ("?", "CC-BY", "CC-BY-SA", "CC0", "http://creativecommons.org/licenses/by-nc/2.0/")
_LICENSE_SHARES = (0.9, 0.04, 0.03, 0.02, 0.01)
_EXIFS = tuple(
    json.dumps(exif)
    for exif in (
        {},
        {"Image Software": "Google"},
        {"Image Artist": 'Zoë "Zo" O\'Hara', "EXIF ColorSpace": "sRGB"},
        {"Image Make": "Canon", "EXIF UserComment": "a\\b, c\nd", "EXIF FNumber": "28/10"},
    )
)
_EXIF_SHARES = (0.8, 0.1, 0.05, 0.05)

Indices = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float16]


class _Stream(IntEnum):
    """One random stream a purpose, so that none shifts another."""

    ITEMS = 0
    IMAGE_NOISE = 1
    TEXT_NOISE = 2
    METADATA = 3


@dataclass(frozen=True, slots=True)
class Items:
    """What the rows of one shard show and in which words, as (rows,) indices.

    `subjects`, `scenes` and `styles` point into the vocabulary's tuples of those names,
    `caption_forms` into `CAPTION_FORMS`, `description_forms` into `DESCRIPTION_FORMS`.
    """

    subjects: Indices
    scenes: Indices
    styles: Indices
    caption_forms: Indices
    description_forms: Indices

    def captions(self) -> list[str]:
        """The captions, one a row, none missing; the text embeddings are made from these."""
        return self._texts(CAPTION_FORMS, self.caption_forms)

    def descriptions(self) -> list[str]:
        """The second wording, one a row; the image embeddings are made from these."""
        return self._texts(DESCRIPTION_FORMS, self.description_forms)

    def _texts(self, forms: Sequence[str], chosen: Indices) -> list[str]:
        rows = zip(
            chosen.tolist(),
            self.subjects.tolist(),
            self.scenes.tolist(),
            self.styles.tolist(),
            strict=True,
        )
        return [_fill(forms[form], row, *words) for row, (form, *words) in enumerate(rows)]


def _fill(form: str, row: int, subject: int, scene: int, style: int) -> str:
    what, where, how = SUBJECTS[subject], SCENES[scene], STYLES[style]
    return form.format(
        subject=what.name,
        category=what.category,
        scene=where.name,
        style=how.name,
        foreign=what.foreign[row % len(what.foreign)],
        subject_alias=what.alias,
        scene_alias=where.alias,
        style_alias=how.alias,
    )


def draw_items(number: int, rows: int, *, seed: int = SEED) -> Items:
    """Choose what the rows of shard `number` show.

    Each odd caption form takes one row in a hundred, the plain ones share the rest evenly.
    """
    random = _generator(seed, number, _Stream.ITEMS)
    odd, plain = len(ODD_CAPTION_FORMS), len(PLAIN_CAPTION_FORMS)
    form_of_slot = np.array(
        [slot if slot < odd else odd + (slot - odd) % plain for slot in range(_SLOTS)]
    )
    return Items(
        subjects=random.integers(len(SUBJECTS), size=rows),
        scenes=random.integers(len(SCENES), size=rows),
        styles=random.integers(len(STYLES), size=rows),
        caption_forms=form_of_slot[random.permutation(rows) % _SLOTS],
        description_forms=random.integers(len(DESCRIPTION_FORMS), size=rows),
    )


def concept_vectors(
    kind: str, names: Sequence[str], dimension: int = DIMENSION
) -> npt.NDArray[np.float32]:
    """Return the fixed unit vectors of some concepts, shape (len(names), dimension).

    A vector depends on its kind, its name and the dimension, not on the other names.
    """
    vectors = np.empty((len(names), dimension))
    for row, name in enumerate(names):
        digest = hashlib.sha256(f"{kind}:{name}".encode()).digest()
        vectors[row] = np.random.default_rng(list(digest)).standard_normal(dimension)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def write_shard(
    directory: Path | str,
    number: int,
    rows: int,
    *,
    dimension: int = DIMENSION,
    seed: int = SEED,
) -> None:
    """Write the three files of shard `number` below `directory`, each in one rename.

    Raises `SampleNotWritable` when the directory cannot be written.
    """
    directory = Path(directory)
    image_path, text_path, metadata_path = shard_paths(directory, number)
    items = draw_items(number, rows, seed=seed)
    similarities = np.empty(rows, np.float32)
    image_side = _Side(dimension, DESCRIPTION_FORMS, _generator(seed, number, _Stream.IMAGE_NOISE))
    text_side = _Side(dimension, CAPTION_FORMS, _generator(seed, number, _Stream.TEXT_NOISE))
    try:
        for path in (image_path, text_path, metadata_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(image_path) as image_file, _replacing(text_path) as text_file:
            for file in (image_file, text_file):
                _write_npy_header(file, (rows, dimension))
            for start in range(0, rows, _BLOCK_ROWS):
                block = slice(start, start + _BLOCK_ROWS)
                images = image_side.embed(items, items.description_forms, block)
                texts = text_side.embed(items, items.caption_forms, block)
                image_file.write(images.tobytes())
                text_file.write(texts.tobytes())
                similarities[block] = _cosines(images, texts)
        with _replacing(metadata_path) as metadata_file:
            pq.write_table(_metadata(items, number, similarities, seed), metadata_file)
    except OSError as error:
        raise _not_writable(directory, error) from error


def write_dataset(directory: Path | str, shard_rows: Sequence[int] = SHARD_ROWS) -> bool:
    """Write the whole sample below `directory`; return False when it was already there.

    It counts as there when the stamp file, which is written last, says so and no file is
    missing. Otherwise every shard is written anew, and the shards an earlier, longer sample
    left over are removed. Raises `SampleNotWritable` when the directory cannot be written.
    """
    directory = Path(directory)
    stamp_path = directory / STAMP_NAME
    stamp = {
        "version": VERSION,
        "shard_rows": list(shard_rows),
        "dimension": DIMENSION,
        "seed": SEED,
    }
    try:
        found = _read_stamp(stamp_path)
        paths = [
            path for number in range(len(shard_rows)) for path in shard_paths(directory, number)
        ]
        if found == stamp and all(path.is_file() for path in paths):
            return False
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(len(shard_rows), len(found.get("shard_rows", ()))):
            for path in shard_paths(directory, number):
                path.unlink(missing_ok=True)
        stamp_path.unlink(missing_ok=True)
        for number, rows in enumerate(shard_rows):
            write_shard(directory, number, rows)
        with _replacing(stamp_path) as file:
            file.write(json.dumps(stamp).encode() + b"\n")
    except OSError as error:
        raise _not_writable(directory, error) from error
    return True


def shard_paths(directory: Path, number: int) -> tuple[Path, Path, Path]:
    """Return where the image vectors, the text vectors and the metadata of a shard lie."""
    return (
        directory / "img_emb" / f"img_emb_{number}.npy",
        directory / "text_emb" / f"text_emb_{number}.npy",
        directory / "metadata" / f"metadata_{number}.parquet",
    )


class _Side:
    """The embedding model of one side; holds the concepts and the side's noise stream."""

    def __init__(self, dimension: int, forms: Sequence[str], noise: np.random.Generator) -> None:
        subjects = concept_vectors("subject", [subject.name for subject in SUBJECTS], dimension)
        categories = concept_vectors("category", CATEGORIES, dimension)
        category_of = [CATEGORIES.index(subject.category) for subject in SUBJECTS]
        self._subjects = (
            np.float32(WEIGHTS["subject"]) * subjects
            + np.float32(WEIGHTS["category"]) * categories[category_of]
        )
        self._scenes = concept_vectors("scene", [scene.name for scene in SCENES], dimension)
        self._styles = concept_vectors("style", [style.name for style in STYLES], dimension)
        self._scene_weights = _mention_weights(forms, "scene")
        self._style_weights = _mention_weights(forms, "style")
        self._noise = noise

    def embed(self, items: Items, forms: Indices, block: slice) -> Vectors:
        """Return the unit vectors of some rows; blocks must come in order, each once."""
        form = forms[block]
        vectors = self._subjects[items.subjects[block]]
        vectors += self._scene_weights[form, None] * self._scenes[items.scenes[block]]
        vectors += self._style_weights[form, None] * self._styles[items.styles[block]]
        rows, dimension = vectors.shape
        lengths = self._noise.uniform(*NOISE_LENGTHS, size=(rows, 1)) / np.sqrt(dimension)
        noise = self._noise.standard_normal((rows, dimension), dtype=np.float32)
        vectors += lengths.astype(np.float32) * noise
        squares = np.sum(np.square(vectors), axis=1, keepdims=True, dtype=np.float64)
        return (vectors / np.sqrt(squares)).astype("<f2")


def _mention_weights(forms: Sequence[str], kind: str) -> npt.NDArray[np.float32]:
    """Return the weight of a concept for each form: 0 where the form does not mention it."""
    mentioned = ["{" + kind + "}" in form or "{" + kind + "_alias}" in form for form in forms]
    return np.where(mentioned, WEIGHTS[kind], 0).astype(np.float32)


def _cosines(images: Vectors, texts: Vectors) -> npt.NDArray[np.float32]:
    left, right = images.astype(np.float32), texts.astype(np.float32)
    sums: npt.NDArray[np.float64] = np.einsum("ij,ij->i", left, right, dtype=np.float64)
    return sums.astype(np.float32)


def _metadata(items: Items, number: int, cosines: npt.NDArray[np.float32], seed: int) -> pa.Table:
    """Build the metadata of a shard; some one in a hundred cells of four columns are null."""
    random = _generator(seed, number, _Stream.METADATA)
    rows = len(cosines)
    # A downloader's key counts within one of its archives, so it repeats.
    keys = random.permutation(rows) % _KEYS_PER_DOWNLOAD
    similarities = cosines + random.normal(0, SIMILARITY_NOISE_STD, rows)
    slugs = [subject.slug for subject in SUBJECTS]
    columns: dict[str, Any] = {
        "image_path": [f"{key:09d}" for key in keys.tolist()],
        "caption": _with_nulls(random, items.captions()),
        "NSFW": _with_nulls(random, random.choice(_NSFW, rows, p=_NSFW_SHARES)),
        "similarity": _with_nulls(random, similarities),
        "LICENSE": _with_nulls(random, random.choice(_LICENSES, rows, p=_LICENSE_SHARES)),
        "url": [
            f"https://sample.invalid/{slugs[subject]}/{number * _URLS_PER_SHARD + row}.jpg"
            for row, subject in enumerate(items.subjects.tolist())
        ],
        "key": keys,
        "shard_id": number * _KEYS_PER_DOWNLOAD + np.arange(rows) // _KEYS_PER_DOWNLOAD,
        "status": ["success"] * rows,
        "error_message": pa.nulls(rows),
        "width": np.full(rows, 256),
        "height": np.full(rows, 256),
        "exif": random.choice(_EXIFS, rows, p=_EXIF_SHARES),
        "original_width": random.integers(100, 4000, rows),
        "original_height": random.integers(100, 4000, rows),
    }
    return pa.table(columns, schema=METADATA_SCHEMA)


def _with_nulls(random: np.random.Generator, values: Sequence[str] | npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=random.permutation(len(values)) % _SLOTS == 0)


def _not_writable(directory: Path, error: OSError) -> SampleNotWritable:
    reason = error.strerror or error
    return SampleNotWritable(
        f"Cannot write the sample dataset to {directory}: {reason}. Choose another directory."
    )


def _generator(seed: int, number: int, stream: _Stream) -> np.random.Generator:
    return np.random.default_rng([seed, number, stream])


def _write_npy_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _read_stamp(path: Path) -> dict[str, Any]:
    """Return what the stamp says, or nothing when it is missing or no stamp of ours."""
    try:
        stamp = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    ours = isinstance(stamp, dict) and isinstance(stamp.get("shard_rows"), list)
    return stamp if ours else {}


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` and rename it to `path` once it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
