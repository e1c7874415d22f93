"""The sample dataset: some 12,000 made-up rows in LAION's own files.

    img_emb/img_emb_N.npy       float16, (rows, 384), unit length
    text_emb/text_emb_N.npy     float16, (rows, 384), unit length
    metadata/metadata_N.parquet the 15 columns of LAION-400M

Row i of the three files belongs together by position only, as in the original. The bytes depend
on the shard's number, its rows, the seed and the embeddings, and on nothing else.

The sample has no real image model. A text vector is what the sample's text encoder gives for the
caption; an image vector is made of what it gives for a second, differently worded description that
is not stored and for what the subject is, with some noise of the item's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from laion.encoders.model import ModelDirectory
from laion.errors import SampleNotWritable
from laion.sample.embeddings import Embeddings, model_embeddings
from laion.sample.items import SEED, Items, Stream, draw_items, generator
from laion.sample.model import ensure_sample_model
from laion.sample.vocabulary import SUBJECTS

SHARD_ROWS: tuple[int, ...] = (2048, 1777, 1999, 1500, 1024, 1301, 613, 1738)

# Raised by hand whenever the same arguments would give other bytes.
VERSION = 2
STAMP_NAME = "sample.json"

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
URLS_PER_SHARD = 10_000_000
URL_BASE = "https://sample.invalid"
"""The sample's server has the picture of an item at the same path."""
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

Vectors = npt.NDArray[np.float16]


def write_shard(
    directory: Path | str, number: int, rows: int, embeddings: Embeddings, *, seed: int = SEED
) -> None:
    """Write the three files of shard `number` below `directory`, each in one rename.

    Raises `SampleNotWritable` when the directory cannot be written.
    """
    directory = Path(directory)
    image_path, text_path, metadata_path = shard_paths(directory, number)
    items = draw_items(number, rows, seed=seed)
    similarities = np.empty(rows, np.float32)
    noise = generator(seed, number, Stream.IMAGE_NOISE)
    try:
        for path in (image_path, text_path, metadata_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(image_path) as image_file, _replacing(text_path) as text_file:
            for file in (image_file, text_file):
                _write_npy_header(file, (rows, embeddings.dimension))
            for start in range(0, rows, _BLOCK_ROWS):
                block = slice(start, start + _BLOCK_ROWS)
                images = embeddings.of_images(items.scenarios[block], noise).astype("<f2")
                texts = embeddings.of_captions(items.captions[block]).astype("<f2")
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
    left over are removed. Raises `SampleNotWritable` when the directory cannot be written, and
    `SampleModelMissing`.
    """
    directory = Path(directory)
    model = ensure_sample_model()
    stamp_path = directory / STAMP_NAME
    stamp = {
        "version": VERSION,
        "shard_rows": list(shard_rows),
        "model": ModelDirectory.open(model).manifest.files,
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
        embeddings = model_embeddings(model)
        for number, rows in enumerate(shard_rows):
            write_shard(directory, number, rows, embeddings)
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


def _cosines(images: Vectors, texts: Vectors) -> npt.NDArray[np.float32]:
    left, right = images.astype(np.float32), texts.astype(np.float32)
    sums: npt.NDArray[np.float64] = np.einsum("ij,ij->i", left, right, dtype=np.float64)
    return sums.astype(np.float32)


def _metadata(items: Items, number: int, cosines: npt.NDArray[np.float32], seed: int) -> pa.Table:
    """Build the metadata of a shard; some one in a hundred cells of four columns are null."""
    random = generator(seed, number, Stream.METADATA)
    rows = len(cosines)
    # A downloader's key counts within one of its archives, so it repeats.
    keys = random.permutation(rows) % _KEYS_PER_DOWNLOAD
    similarities = cosines + random.normal(0, SIMILARITY_NOISE_STD, rows)
    slugs = [subject.slug for subject in SUBJECTS]
    columns: dict[str, Any] = {
        "image_path": [f"{key:09d}" for key in keys.tolist()],
        "caption": _with_nulls(random, items.caption_texts()),
        "NSFW": _with_nulls(random, random.choice(_NSFW, rows, p=_NSFW_SHARES)),
        "similarity": _with_nulls(random, similarities),
        "LICENSE": _with_nulls(random, random.choice(_LICENSES, rows, p=_LICENSE_SHARES)),
        "url": [
            f"{URL_BASE}/{slugs[subject]}/{number * URLS_PER_SHARD + row}.jpg"
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
