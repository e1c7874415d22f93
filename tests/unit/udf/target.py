"""A server that functions are deployed to, and how a test does it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from laion.encoders.model import ModelDirectory
from laion.udf.checks import Expectation, check_functions
from laion.udf.deploy import Host, deploy_version
from laion.udf.directories import LocalDirectory
from laion.udf.options import WorkerOptions
from laion.udf.version import DEFINITION, UdfVersion, render_version


@dataclass
class Target:
    """A server without functions, and how a test deploys to it."""

    client: Client
    server: Path
    model: Path
    pictures: Path

    @property
    def scripts(self) -> Path:
        return self.server / "user_scripts"

    @property
    def definition(self) -> Path:
        return self.server / "user_defined_functions" / DEFINITION

    @property
    def host(self) -> Host:
        functions = LocalDirectory(self.definition.parent)
        return Host("here", LocalDirectory(self.scripts), functions, self.client)

    def version(
        self, *, python: str = sys.executable, threads: int = 1, pictures: str = ""
    ) -> UdfVersion:
        """A version with `encode_text` only, unless there is a directory of pictures."""
        manifest = ModelDirectory.open(self.model).manifest
        options = WorkerOptions(str(self.model), pictures, threads)
        return render_version(manifest, options, python=python, pool_size=1)

    def deploy(
        self,
        version: UdfVersion,
        table: str | None = None,
        check: Callable[[Client], None] | None = None,
    ) -> bool:
        manifest = ModelDirectory.open(self.model).manifest
        expected = Expectation(manifest, version.functions, pool_size=1, table=table)
        return deploy_version(
            [self.host], version, check or (lambda client: check_functions(client, expected))
        )

    def files(self) -> dict[str, int]:
        """What is deployed, and when each file was written."""
        files = [*self.scripts.iterdir(), *self.definition.parent.iterdir()]
        return {path.name: path.stat().st_mtime_ns for path in files}

    def encode(self, text: str) -> list[float]:
        query = "SELECT encode_text({text:String})"
        return self.client.query(query, parameters={"text": text}).result_rows[0][0]

    def workers(self, sha: str) -> list[int]:
        """The running processes of a version."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if f"laion_udf_{sha}".encode() in (directory / "cmdline").read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
        return found
