"""The steps of a Dockerfile that need no Docker, done below a directory in the place of the root.

What copies files, installs packages, and makes directories and models is run as it is written. What
needs the base image's distribution or another user is left out; a step of neither kind is an error.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
RUN_HERE = re.compile(r"(\S*/)?(pip|python[0-9.]*|mkdir)\s")
LEFT_OUT = re.compile(r"(apt-get|rm -rf|useradd|chown)\s")
PLACE = re.compile(r"(?<![\w./])/(?=(tmp|src|opt|srv|usr/local)\b)")


@dataclass(frozen=True)
class Image:
    """What a Dockerfile has made below `root`."""

    root: Path

    @property
    def programs(self) -> Path:
        """Where the base image has its Python, and the Dockerfile puts its commands."""
        return self.root / "usr/local/bin"


def build_airflow(root: Path) -> Image:
    """Follow docker/airflow/Dockerfile."""
    dockerfile = DOCKER / "airflow" / "Dockerfile"
    base = re.search(r"^FROM python:(\d+\.\d+)", dockerfile.read_text(), re.MULTILINE)
    assert base is not None
    subprocess.run([find_python(base[1]), "-m", "venv", root / "usr/local"], check=True)
    return _follow(dockerfile, Image(root))


def build_clickhouse(root: Path) -> Image:
    """Follow docker/clickhouse/Dockerfile, stage `functions`; the base image is not to be had."""
    return _follow(DOCKER / "clickhouse" / "Dockerfile", Image(root))


def find_python(version: str) -> str:
    """Return the Python of a version, such as 3.12, or, where there is none, the one of this."""
    found = shutil.which(f"python{version}")
    works = found and subprocess.run([found, "-V"], capture_output=True, check=False)
    if found and works and works.returncode == 0:
        return found
    print(f"no Python {version} here: the image's steps are tried with {sys.version.split()[0]}")
    return sys.executable


def _follow(dockerfile: Path, image: Image) -> Image:
    """Do the steps of the first stage."""
    workdir = image.root
    for instruction, rest in _first_stage(dockerfile.read_text()):
        if instruction == "WORKDIR":
            workdir = image.root / rest.strip("/")
            workdir.mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            _copy(rest, image.root)
        elif instruction == "RUN":
            for command in re.split(r"\s+&&\s+", rest):
                _run(command, image, workdir)
    return image


def _first_stage(text: str) -> Iterator[tuple[str, str]]:
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    stages = 0
    for line in filter(None, lines):
        instruction, _, rest = line.partition(" ")
        stages += instruction == "FROM"
        if stages > 1:
            return
        yield instruction, rest


def _copy(rest: str, root: Path) -> None:
    *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
    is_directory = target.endswith("/") or len(sources) > 1
    for name in sources:
        source, place = PROJECT / name, root / target.strip("/")
        place = place / source.name if is_directory else place
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(
                source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(source, place)
            if "--chmod=0755" in rest:
                place.chmod(0o755)


def _run(command: str, image: Image, workdir: Path) -> None:
    if LEFT_OUT.match(command):
        return
    assert RUN_HERE.match(command), f"this step is of no kind that is known: {command}"
    here = PLACE.sub(f"{image.root}/", command)
    path = f"{image.programs}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["bash", "-c", here], cwd=workdir, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
