"""Dataset profiles: what is known of a dataset before any of its files is read.

A profile is one TOML file in `profiles/`; its name is the file's.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from laion.errors import BadProfile, BadShards, UnknownDataset
from laion.shards import ROLES, format_shards, parse_shards


class Layout(BaseModel):
    """Paths of a shard's files below a base URL, with `{shard}` where the number goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_embedding: str = Field(pattern=r"\{shard\}")
    text_embedding: str = Field(pattern=r"\{shard\}")
    metadata: str = Field(pattern=r"\{shard\}")

    def paths(self, shard: int, digits: int) -> dict[str, str]:
        """Return the path of each role for a shard number padded to `digits`."""
        number = f"{shard:0{digits}d}"
        return {role: getattr(self, role).format(shard=number) for role in ROLES}


class Profile(BaseModel):
    """A dataset: its shards, its vectors' dimension and where its files lie.

    `dimension` and `shards` are None where only the files can tell, `model` where it is not known
    which model made the vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    dimension: int | None = Field(None, ge=1, le=65_536)
    model: str | None = None
    shards: str | None = None
    rows_total: int | None = None
    rows_per_shard: int | None = None
    rows_of_odd_shards: dict[int, int] = {}
    sources: tuple[str, ...] = ()
    digits: tuple[int, ...] = (1,)
    layouts: tuple[Layout, ...] = Field(min_length=1)

    @field_validator("shards")
    @classmethod
    def _is_readable(cls, shards: str | None) -> str | None:
        try:
            parse_shards("0" if shards is None else shards)
        except BadShards as error:
            raise ValueError(str(error)) from error
        return shards

    @model_validator(mode="after")
    def _rows_add_up(self) -> Profile:
        if self.rows_total is not None:
            counted = sum(self.rows_of(n) or 0 for n in self.all_shards())
            if counted != self.rows_total:
                raise ValueError(f"rows_total is {self.rows_total}, but the shards have {counted}")
        return self

    def all_shards(self) -> list[int]:
        """Return every shard number of the dataset. Raises BadShards where none are listed."""
        if self.shards is None:
            raise BadShards(
                f"dataset {self.name!r} has no list of its shards; give a range such as '0-2'"
            )
        return parse_shards(self.shards)

    def check_shards(self, numbers: list[int]) -> list[int]:
        """Return `numbers` if the dataset has them all, as far as is known. Raises BadShards."""
        if self.shards is not None and (unknown := set(numbers) - set(self.all_shards())):
            raise BadShards(
                f"shards: dataset {self.name!r} has shards {self.shards}, not "
                f"{format_shards(sorted(unknown))}"
            )
        return numbers

    def rows_of(self, shard: int) -> int | None:
        """Return the rows that a shard is known to have, or None."""
        return self.rows_of_odd_shards.get(shard, self.rows_per_shard)


def profile_names() -> list[str]:
    """Return the names of all profiles, sorted."""
    folder = files("laion") / "profiles"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


@cache
def load_profile(name: str) -> Profile:
    """Read the profile `name`. Raises UnknownDataset, BadProfile (naming the key)."""
    if name not in profile_names():
        raise UnknownDataset(
            f"dataset: there is no profile {name!r}; choose one of {', '.join(profile_names())}"
        )
    text = (files("laion") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_profile(name, text)


def parse_profile(name: str, text: str) -> Profile:
    """Read a profile from TOML text. Raises BadProfile (naming the key)."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
        return Profile(**{"name": name, **values})
    except tomllib.TOMLDecodeError as error:
        raise BadProfile(f"profiles/{name}.toml is no TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'profile'}: {e['msg']}" for e in error.errors()
        )
        raise BadProfile(f"profiles/{name}.toml: {problems}") from error
