"""Little shards in LAION's own layout, and ways to damage them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from laion.datasets import Layout
from laion.sample.dataset import shard_paths, write_shard
from laion.sample.embeddings import made_up_embeddings
from laion.shards import METADATA, ShardFiles, ShardSpec
from laion.vectors import IMAGE, TEXT, clip_vectors

VECTORS = (IMAGE, TEXT)
ROLES = (*VECTORS, METADATA)
DIMENSION = 16
ROWS = 60
ATTEMPT = "aaaa0001"

LAION_LAYOUT = Layout(
    image_embedding="img_emb/img_emb_{shard}.npy",
    text_embedding="text_emb/text_emb_{shard}.npy",
    metadata="metadata/metadata_{shard}.parquet",
)


def write_little_shard(directory: Path, shard: int = 0, rows: int = ROWS) -> ShardFiles:
    """Write a shard of unit-length float16 vectors and LAION's 15 metadata columns."""
    write_shard(directory, shard, rows, made_up_embeddings(DIMENSION))
    return files_of(directory, shard)


def write_arrays(
    directory: Path,
    images: npt.NDArray[Any],
    texts: npt.NDArray[Any],
    metadata: pa.Table,
    shard: int = 0,
) -> ShardFiles:
    """Write a shard from arrays of any dtype and order, and a table of any columns."""
    files = files_of(directory, shard, check=False)
    for role, array in (("image_embedding", images), ("text_embedding", texts)):
        Path(files.paths[role]).parent.mkdir(parents=True, exist_ok=True)
        np.save(files.paths[role], array)
    Path(files.paths["metadata"]).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(metadata, files.paths["metadata"])
    return files_of(directory, shard)


def unit_vectors(rows: int, dimension: int = DIMENSION, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return random float32 vectors of unit length, shape (rows, dimension)."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def path_of(directory: Path, role: str, shard: int = 0) -> Path:
    """Return where the file of one role lies."""
    return dict(zip(ROLES, shard_paths(directory, shard), strict=True))[role]


def spec_of(
    base: Path | str,
    shard: int = 0,
    *,
    table: str = "little",
    rows: int | None = None,
    dimension: int | None = None,
) -> ShardSpec:
    """Plan a shard below a directory or base URL, of so many rows and dimensions if given."""
    url = base.as_uri() if isinstance(base, Path) else base.rstrip("/")
    urls = {role: [f"{url}/{path}"] for role, path in LAION_LAYOUT.paths(shard, 1).items()}
    vectors = list(clip_vectors(dimension))
    return ShardSpec("little", table, shard, urls, rows=rows, vectors=vectors)


def files_of(
    directory: Path, shard: int = 0, *, attempt: str = ATTEMPT, check: bool = True, **spec: Any
) -> ShardFiles:
    """Return the record of a shard's files; sizes are empty unless they must exist (`check`)."""
    paths = {role: path_of(directory, role, shard) for role in ROLES}
    return ShardFiles(
        spec=spec_of(directory, shard, **spec),
        attempt=attempt,
        paths={role: str(path) for role, path in paths.items()},
        sizes={role: path.stat().st_size for role, path in paths.items()} if check else {},
        staged=False,
    )


def read_vectors(directory: Path, role: str, shard: int = 0) -> npt.NDArray[np.float32]:
    """Return the vectors of a shard as numpy reads them, as float32."""
    return np.asarray(np.load(path_of(directory, role, shard)), dtype=np.float32)


def read_metadata(directory: Path, shard: int = 0) -> pa.Table:
    """Return the metadata of a shard as Parquet holds it."""
    return pq.read_table(path_of(directory, "metadata", shard))


def truncate(path: Path, missing_bytes: int = 1) -> None:
    """Cut bytes off the end of a file."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - missing_bytes)


def append(path: Path, data: bytes = b"\0") -> None:
    """Put bytes behind the end of a file."""
    with path.open("ab") as file:
        file.write(data)


def set_vectors(directory: Path, role: str, vectors: Mapping[int, Any], shard: int = 0) -> None:
    """Set the vectors of some rows: to one value each, such as 0 or NaN, or to an array."""
    array = np.load(path_of(directory, role, shard))
    for row, value in vectors.items():
        array[row] = value
    np.save(path_of(directory, role, shard), array)


def scale_vectors(directory: Path, role: str, rows: slice, factor: float, shard: int = 0) -> None:
    """Make the vectors of some rows longer or shorter."""
    array = np.load(path_of(directory, role, shard))
    array[rows] = array[rows] * factor
    np.save(path_of(directory, role, shard), array)


def shift_rows(directory: Path, role: str, by: int = 1, shard: int = 0) -> None:
    """Move the vectors of one side by some rows, the last ones to the front."""
    path = path_of(directory, role, shard)
    np.save(path, np.roll(np.load(path), by, axis=0))


def drop_last_row(directory: Path, role: str, shard: int = 0) -> None:
    """Make one file of a shard a row shorter than the others."""
    path = path_of(directory, role, shard)
    if role == "metadata":
        table = pq.read_table(path)
        pq.write_table(table.slice(0, len(table) - 1), path)
    else:
        np.save(path, np.load(path)[:-1])


def corrupt_column_name(path: Path) -> None:
    """Make the name of a Parquet file's column `caption` no UTF-8, everywhere in its footer."""
    path.write_bytes(path.read_bytes().replace(b"caption", b"captio\xee"))


def corrupt_pages(path: Path) -> None:
    """Overwrite what lies between a Parquet file's first bytes and its footer."""
    size = path.stat().st_size
    footer_bytes = int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"\xff" * (size - footer_bytes - 4))
