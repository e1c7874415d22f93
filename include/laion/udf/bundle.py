"""Packs what a worker runs into one executable file: the encoders, the worker, and ftfy."""

from __future__ import annotations

import io
import re
import zipfile
from importlib.util import find_spec
from pathlib import Path

from laion.errors import BadSetting

PACKAGE_MODULES = (
    "__init__",
    "errors",
    "encoders/__init__",
    "encoders/clean",
    "encoders/decode",
    "encoders/image",
    "encoders/known_picture",
    "encoders/model",
    "encoders/preprocess",
    "encoders/text",
    "encoders/vectors",
    "udf/__init__",
    "udf/options",
    "udf/pictures",
    "udf/rowbinary",
    "udf/worker",
)
VENDORED = ("ftfy", "wcwidth")
"""Pure Python; the server needs only onnxruntime, tokenizers, Pillow and numpy."""

MAX_SHEBANG_BYTES = 255
"""What Linux reads of a script's first line since 5.1."""

_ENTRY = b"""\
import sys
from pathlib import Path

from laion.udf.worker import main

sys.exit(main(Path(sys.argv[0])))
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PYTHON = re.compile(r"/[^\s\x00]+")


def build_bundle(python: str) -> bytes:
    """Return the bundle, to be run by the interpreter `python` of the ClickHouse server.

    The same sources and interpreter give the same bytes. Raises BadSetting.
    """
    shebang = f"#!{python} -I\n".encode()
    if not _PYTHON.fullmatch(python) or len(shebang) > MAX_SHEBANG_BYTES:
        raise BadSetting(
            f"LAION_UDF_PYTHON: {python!r} cannot be the interpreter of a script; give an "
            f"absolute path without blanks of at most {MAX_SHEBANG_BYTES - 6} characters"
        )
    archive = io.BytesIO()
    # Stored, not deflated: the bytes must not depend on a version of zlib.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in sorted(_contents().items()):
            file.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return shebang + archive.getvalue()


def _contents() -> dict[str, bytes]:
    root = _package_directory("laion")
    contents = {f"laion/{name}.py": (root / f"{name}.py").read_bytes() for name in PACKAGE_MODULES}
    for package in VENDORED:
        directory = _package_directory(package)
        for path in directory.rglob("*.py"):
            contents[f"{package}/{path.relative_to(directory)}"] = path.read_bytes()
    return contents | {"__main__.py": _ENTRY}


def _package_directory(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
