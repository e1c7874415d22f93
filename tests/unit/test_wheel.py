"""The wheel that goes into somebody else's Airflow holds everything that the package reads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # setuptools builds in place, which other tests must not see.
    listed = ["git", "ls-files", "-co", "--exclude-standard", "include", "pyproject.toml"]
    files = subprocess.run(
        [*listed, "README.md", "LICENSE"], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout.split()
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((PROJECT / name).read_bytes())
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([sys.executable, "-m", *build, source], check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        requirements = next(
            archive.read(name).decode() for name in archive.namelist() if "METADATA" in name
        )
    assert held == {name.removeprefix("include/") for name in files if "include/" in name}
    assert "Requires-Dist: apache-airflow<4,>=3.3" in requirements
    assert "chdb-core==26.9.0; extra == " in requirements
