"""Dataset profiles: what is known of a dataset before any of its files is read.

A profile is one TOML file in `profiles/`, or in the directory of the setting
`LAION_PROFILES_DIR`; its name is the file's.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from laion.errors import BadProfile, BadSetting, BadShards, UnknownDataset
from laion.settings import get_settings
from laion.shards import ROLES, VECTORS, format_shards, parse_shards

DTYPE_BYTES = {"float16": 2, "float32": 4}
NPY_HEADER_BYTES = 128

TEXT_COLUMNS = ("url", "caption", "NSFW", "LICENSE", "key")
SIZE_COLUMNS = ("width", "height", "original_width", "original_height")
METADATA_COLUMNS = (*TEXT_COLUMNS, *SIZE_COLUMNS, "similarity")
"""Columns of the base table that come from the metadata file."""
COLUMNS = (*METADATA_COLUMNS, *VECTORS)
"""Columns of the base table that come from a file."""

VALUE_ERROR = "Value error, "

VectorName = Literal["image_embedding", "text_embedding"]
RoleName = Literal["image_embedding", "text_embedding", "metadata"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PathTemplate = Annotated[str, Field(pattern=r"\{shard\}")]


class Layout(BaseModel):
    """Paths of a shard's files below a base URL, with `{shard}` where the number goes.

    A vector that lies inside the metadata file has no file of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_embedding: PathTemplate | None = None
    text_embedding: PathTemplate | None = None
    metadata: PathTemplate

    @property
    def roles(self) -> tuple[str, ...]:
        """What there are files for."""
        return tuple(role for role in ROLES if getattr(self, role) is not None)

    def paths(self, shard: int, digits: int) -> dict[str, str]:
        """Return the path of each role for a shard number padded to `digits`."""
        number = f"{shard:0{digits}d}"
        return {role: getattr(self, role).format(shard=number) for role in self.roles}


class Mirror(Layout):
    """A place that has the dataset, with the layout of its own."""

    url: str

    @property
    def layout(self) -> Layout:
        return Layout(**self.model_dump(exclude={"url"}))


class Profile(BaseModel):
    """A dataset: its shards, its vectors and where its files lie.

    `mirrors` are asked in order. A `source` that is given for a run may have the layout of any
    mirror or one of `layouts`. `columns` names the columns of the Parquet file that have another
    name than the table's; a vector that is among them lies there and not in an npy file. A shard
    whose file lacks one of `required_columns`, or has no value in it, fails; others may be absent.

    `dimension` and `shards` are None where only the files can tell, `model` where it is not known
    which model made the vectors. `metadata_bytes_per_row` is for estimates. `sha256` has the known
    digests of files, by role and shard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    dimension: int | None = Field(None, ge=1, le=65_536)
    dtype: Literal["float16", "float32"] = "float16"
    model: str | None = None
    vectors: tuple[VectorName, ...] = Field(("image_embedding", "text_embedding"), min_length=1)
    columns: dict[str, str] = {}
    required_columns: tuple[str, ...] = ()
    shards: str | None = None
    rows_total: int | None = None
    rows_per_shard: int | None = None
    rows_of_odd_shards: dict[int, int] = {}
    metadata_bytes_per_row: int = Field(155, ge=1)
    sha256: dict[RoleName, dict[int, Digest]] = {}
    digits: tuple[int, ...] = (1,)
    mirrors: tuple[Mirror, ...] = ()
    layouts: tuple[Layout, ...] = ()

    @field_validator("shards")
    @classmethod
    def _is_readable(cls, shards: str | None) -> str | None:
        try:
            parse_shards("0" if shards is None else shards)
        except BadShards as error:
            raise ValueError(str(error)) from error
        return shards

    @field_validator("columns")
    @classmethod
    def _are_ours(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(columns) - set(COLUMNS)):
            raise ValueError(f"{', '.join(unknown)}: ours are {', '.join(COLUMNS)}")
        if bare := [vector for vector in VECTORS if columns.get(vector) == ""]:
            raise ValueError(f"{', '.join(bare)}: leave a vector out of `vectors`, not here")
        return columns

    @field_validator("required_columns")
    @classmethod
    def _are_metadata(cls, required: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(required) - set(METADATA_COLUMNS)):
            raise ValueError(f"{', '.join(unknown)}: choose from {', '.join(METADATA_COLUMNS)}")
        return required

    @model_validator(mode="after")
    def _rows_add_up(self) -> Profile:
        if self.rows_total is not None:
            counted = sum(self.rows_of(n) or 0 for n in self.all_shards())
            if counted != self.rows_total:
                raise ValueError(f"rows_total is {self.rows_total}, but the shards have {counted}")
        return self

    @model_validator(mode="after")
    def _every_vector_has_its_place(self) -> Profile:
        inside = [vector for vector in self.vectors if vector in self.columns]
        if inside and self.dimension is None:
            raise ValueError("dimension: must be given when vectors lie inside the Parquet file")
        if not self.known_layouts:
            raise ValueError("mirrors, layouts: at least one of either is needed")
        for kind in ("mirrors", "layouts"):
            for number, layout in enumerate(getattr(self, kind)):
                for role in sorted(set(self.roles) ^ set(layout.roles)):
                    wanted = "is missing" if role in self.roles else "is none of `vectors`"
                    raise ValueError(f"{kind}.{number}.{role}: {wanted}")
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        """What a shard has files for."""
        return (*(v for v in self.vectors if v not in self.columns), "metadata")

    @property
    def known_layouts(self) -> tuple[Layout, ...]:
        """Every layout that a source may have, once."""
        layouts = [*(mirror.layout for mirror in self.mirrors), *self.layouts]
        return tuple(dict.fromkeys(layouts))

    def digests_of(self, shard: int) -> dict[str, str]:
        """Return the sha256 that files of a shard are known to have, by role."""
        known = {role: digests.get(shard) for role, digests in self.sha256.items()}
        return {role: digest for role, digest in known.items() if digest is not None}

    def file_bytes(self, shard: int, dimension: int) -> dict[str, int]:
        """Return about how large each file of a shard is; nothing where its rows are not known."""
        rows = self.rows_of(shard)
        if rows is None:
            return {}
        vector_bytes = rows * dimension * DTYPE_BYTES[self.dtype]
        inside = sum(vector in self.columns for vector in self.vectors)
        sizes = dict.fromkeys(self.roles, NPY_HEADER_BYTES + vector_bytes)
        sizes["metadata"] = rows * self.metadata_bytes_per_row + inside * vector_bytes
        return sizes

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
    return sorted(_profile_files())


@cache
def load_profile(name: str) -> Profile:
    """Read the profile `name`. Raises UnknownDataset, BadProfile (naming the key)."""
    found = _profile_files()
    if name not in found:
        raise UnknownDataset(
            f"dataset: there is no profile {name!r}; choose one of {', '.join(sorted(found))}"
        )
    return parse_profile(name, found[name].read_text(encoding="utf-8"))


def check_profiles() -> None:
    """Read every profile. Raises BadProfile, naming the file and the key."""
    for name in profile_names():
        load_profile(name)


def _profile_files() -> dict[str, Traversable]:
    """Return every profile's file by its name; one's own come before those of the package."""
    folders: list[Traversable] = [files("laion") / "profiles"]
    if own := get_settings().profiles_dir:
        folders.append(Path(own))
        if not Path(own).is_dir():
            raise BadSetting(f"LAION_PROFILES_DIR: {own} is no directory")
    return {
        entry.name.removesuffix(".toml"): entry
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


def parse_profile(name: str, text: str) -> Profile:
    """Read a profile from TOML text. Raises BadProfile (naming the key)."""
    try:
        values: dict[str, Any] = tomllib.loads(text)
        return Profile(**{"name": name, **values})
    except tomllib.TOMLDecodeError as error:
        raise BadProfile(f"profile {name}.toml is no TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(
                filter(None, [".".join(map(str, e["loc"])), e["msg"].removeprefix(VALUE_ERROR)])
            )
            for e in error.errors()
        )
        raise BadProfile(f"profile {name}.toml: {problems}") from error
