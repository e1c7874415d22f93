"""Files as a source has them, empty, for tests of where they are looked for."""

from __future__ import annotations

from pathlib import Path

from laion.datasets import Profile


def put_files(directory: Path, *paths: str) -> None:
    for path in paths:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).touch()


def put_shard(directory: Path, profile: Profile, layout: int, shard: int, digits: int = 1) -> None:
    put_files(directory, *profile.known_layouts[layout].paths(shard, digits).values())
