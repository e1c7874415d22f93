"""What docs/parquet.md tells readers to do gives the source's vectors, in every reader it names."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.client import Client

from laion import __version__
from laion.convert import convert_shard
from laion.download import download_shard
from tests.shard_files import DIMENSION, path_of, read_vectors, spec_of, write_little_shard
from tests.unit.mirrors import Mirror

PAGE = (Path(__file__).parents[2] / "docs" / "parquet.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CREATE_FUNCTION, SELECT = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
READERS = [code for code in PYTHON if "vectors =" in code]
(SOURCES,) = [code for code in PYTHON if "sources =" in code]


@pytest.fixture
def file(
    mirror: Mirror, shard_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """`0.parquet` in the current directory, made from files that were downloaded."""
    write_little_shard(shard_directory)
    staging = tmp_path / "staging"
    staging.mkdir()
    files = download_shard(spec_of(mirror.url), "aaaa0001", staging)
    convert_shard(files, tmp_path / "0.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "0.parquet"


def run(code: str) -> dict[str, Any]:
    """Run a block of the page, for vectors of the test's length."""
    names: dict[str, Any] = {}
    exec(code.replace("512", str(DIMENSION)), names)
    return names


def test_the_page_names_three_readers_in_python() -> None:
    assert [next(n for n in ("pyarrow", "polars", "duckdb") if n in code) for code in READERS] == [
        "pyarrow",
        "polars",
        "duckdb",
    ]


@pytest.mark.parametrize("code", READERS)
def test_a_reader_in_python_gets_the_vectors(file: Path, shard_directory: Path, code: str) -> None:
    vectors = run(code)["vectors"]

    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, read_vectors(shard_directory, "image_embedding"))


def test_clickhouse_gets_the_vectors(
    clickhouse_server: Any, client: Client, file: Path, shard_directory: Path
) -> None:
    user_files = clickhouse_server.path / "user_files"
    user_files.mkdir(exist_ok=True)
    readable = user_files / f"{client.database}.parquet"
    shutil.copy(file, readable)
    function = f"from_float16_{client.database}"
    client.command(CREATE_FUNCTION.replace("from_float16", function))

    sql = SELECT.replace("from_float16", function).replace("0.parquet", str(readable))
    vectors = [row[1] for row in client.query(sql).result_rows]

    np.testing.assert_array_equal(vectors, read_vectors(shard_directory, "image_embedding"))
    client.command(f"DROP FUNCTION {function}")


def test_the_function_for_clickhouse_is_exact_for_every_finite_float16(client: Client) -> None:
    values = np.arange(65_536, dtype=np.uint16).view(np.float16)
    finite = values[np.isfinite(values)]
    function = f"from_float16_{client.database}"
    client.command(CREATE_FUNCTION.replace("from_float16", function))

    for half in np.array_split(finite, 8):
        sql = f"SELECT {function}(unhex({{bytes:String}}))"
        ((found,),) = client.query(sql, parameters={"bytes": half.tobytes().hex()}).result_rows
        np.testing.assert_array_equal(found, half)
    client.command(f"DROP FUNCTION {function}")


def test_a_file_tells_where_it_comes_from(
    file: Path, mirror: Mirror, shard_directory: Path
) -> None:
    sources = run(SOURCES)["sources"]
    metadata = pq.read_schema(file).metadata

    image = path_of(shard_directory, "image_embedding").read_bytes()
    assert set(sources) == {"image_embedding", "text_embedding", "metadata"}
    assert sources["image_embedding"]["sha256"] == hashlib.sha256(image).hexdigest()
    assert sources["image_embedding"]["url"] == f"{mirror.url}/img_emb/img_emb_0.npy"
    assert metadata[b"laion.dataset"] == b"little"
    assert metadata[b"laion.shard"] == b"0"
    assert metadata[b"laion.version"] == __version__.encode()
