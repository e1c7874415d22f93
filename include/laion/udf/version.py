"""One version of the functions: the files that ClickHouse is given, named after their content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from laion.encoders.model import IMAGE_MODEL, TEXT_MODEL, Manifest
from laion.udf.bundle import build_bundle
from laion.udf.options import WorkerOptions

DEFINITION = "laion_function.xml"
"""In the server's directory of functions. The name stays: exchanging versions is one rename."""

STORED_FILE = re.compile(r"laion_udf_([0-9a-f]{12})\.(pyz|json|xml)")
"""In the server's user_scripts: the bundle, its options, and a copy of the definition."""

TIMEOUT_S = 60
"""For loading a model, or for one window of rows."""

_SHA_CHARACTERS = 12


@dataclass(frozen=True)
class UdfVersion:
    """The files of a version: `scripts` by name, and the definition that makes it active."""

    sha: str
    functions: tuple[str, ...]
    scripts: dict[str, bytes]
    definition: bytes

    def is_executable(self, name: str) -> bool:
        """Return whether a file of `scripts` must have the executable bit."""
        return name.endswith(".pyz")


def render_version(
    manifest: Manifest, options: WorkerOptions, *, python: str, pool_size: int
) -> UdfVersion:
    """Return the version that these make; the same ones always give the same.

    `encode_image` is part of it where the model has an image side and the options a directory of
    pictures. Raises BadSetting.
    """
    functions = tuple(
        name
        for name, is_there in (
            ("encode_text", TEXT_MODEL in manifest.files),
            ("encode_image", IMAGE_MODEL in manifest.files and bool(options.image_root)),
        )
        if is_there
    )
    bundle, settings = build_bundle(python), options.to_json()
    digest = hashlib.sha256()
    for part in (bundle, manifest.to_json(), settings, _definition("", functions, pool_size)):
        digest.update(hashlib.sha256(part).digest())
    sha = digest.hexdigest()[:_SHA_CHARACTERS]
    name = f"laion_udf_{sha}"
    definition = _definition(name, functions, pool_size)
    scripts = {f"{name}.pyz": bundle, f"{name}.json": settings, f"{name}.xml": definition}
    return UdfVersion(sha, functions, scripts, definition)


def _definition(name: str, functions: tuple[str, ...], pool_size: int) -> bytes:
    template = Template((files("laion.udf") / "function.xml").read_text(encoding="utf-8"))
    rendered = [
        template.substitute(
            name=function,
            argument=function.removeprefix("encode_"),
            command=f"{name}.pyz {function}",
            pool_size=pool_size,
            timeout_s=TIMEOUT_S,
            timeout_ms=TIMEOUT_S * 1000,
        )
        for function in functions
    ]
    return "\n".join(["<functions>", *rendered, "</functions>", ""]).encode()
