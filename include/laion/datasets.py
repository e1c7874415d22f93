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

from laion.columns import NAMES
from laion.errors import BadProfile, BadSetting, BadShards, UnknownDataset
from laion.settings import get_settings
from laion.shards import METADATA, format_shards, parse_shards
from laion.vectors import IMAGE, TEXT, Vector

DTYPE_BYTES = {"float16": 2, "float32": 4}
NPY_HEADER_BYTES = 128

VALUE_ERROR = "Value error, "

Dtype = Literal["float16", "float32"]
Dimension = Annotated[int, Field(ge=1, le=65_536)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
VectorName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,59}$")]
PathTemplate = Annotated[str, Field(pattern=r"\{shard\}")]


class Layout(BaseModel):
    """Paths of a shard's files below a base URL, with `{shard}` where the number goes.

    Beside `metadata` there is one for each vector, under its name; but none for a vector that lies
    inside the metadata file.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, PathTemplate]

    metadata: PathTemplate

    @property
    def templates(self) -> dict[str, str]:
        """The path of each role, that of the metadata last."""
        return {**self.__pydantic_extra__, METADATA: self.metadata}

    @property
    def roles(self) -> tuple[str, ...]:
        """What there are files for."""
        return tuple(self.templates)

    def paths(self, shard: int, digits: int) -> dict[str, str]:
        """Return the path of each role for a shard number padded to `digits`."""
        number = f"{shard:0{digits}d}"
        return {role: path.format(shard=number) for role, path in self.templates.items()}


class Mirror(Layout):
    """A place that has the dataset, with the layout of its own."""

    url: str

    @property
    def layout(self) -> Layout:
        return Layout(**self.model_dump(exclude={"url"}))


class VectorFacts(BaseModel):
    """What of one vector is otherwise than the profile says of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: Dimension | None = None
    dtype: Dtype | None = None
    model: str | None = None


class Profile(BaseModel):
    """A dataset: its shards, its vectors and where its files lie.

    `mirrors` are asked in order. A `source` that is given for a run may have the layout of any
    mirror or one of `layouts`. `columns` names the columns of the Parquet file that have another
    name than the table's; a vector that is among them lies there and not in an npy file. A shard
    whose file lacks one of `required_columns`, or has no value in it, fails; others may be absent.

    `dimension`, `dtype` and `model` are those of every vector but where `vector` has others, by its
    name. `dimension` and `shards` are None where only the files can tell, `model` where it is not
    known which model made the vectors. `metadata_bytes_per_row` is for estimates. `sha256` has the
    known digests of files, by role and shard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    dimension: Dimension | None = None
    dtype: Dtype = "float16"
    model: str | None = None
    vectors: tuple[VectorName, ...] = Field((IMAGE, TEXT), min_length=1)
    vector: dict[str, VectorFacts] = {}
    columns: dict[str, str] = {}
    required_columns: tuple[str, ...] = ()
    shards: str | None = None
    rows_total: int | None = None
    rows_per_shard: int | None = None
    rows_of_odd_shards: dict[int, int] = {}
    metadata_bytes_per_row: int = Field(155, ge=1)
    sha256: dict[str, dict[int, Digest]] = {}
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

    @field_validator("required_columns")
    @classmethod
    def _are_metadata(cls, required: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(required) - set(NAMES)):
            raise ValueError(f"{', '.join(unknown)}: choose from {', '.join(NAMES)}")
        return required

    @model_validator(mode="after")
    def _rows_add_up(self) -> Profile:
        if self.rows_total is not None:
            counted = sum(self.rows_of(n) or 0 for n in self.all_shards())
            if counted != self.rows_total:
                raise ValueError(f"rows_total is {self.rows_total}, but the shards have {counted}")
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Profile:
        taken = {"id", "shard", "distance", METADATA, *map(str.lower, NAMES)}
        if wrong := [name for name in self.vectors if name.lower() in taken]:
            raise ValueError(f"vectors: {', '.join(wrong)}: the table has such a column already")
        # Indexes and views are named after a vector without this ending.
        if len({name.removesuffix("_embedding") for name in self.vectors}) < len(self.vectors):
            raise ValueError("vectors: each can be there once, with _embedding or without")
        ours = (*NAMES, *self.vectors)
        if unknown := sorted(set(self.columns) - set(ours)):
            raise ValueError(f"columns: {', '.join(unknown)}: ours are {', '.join(ours)}")
        if bare := [name for name in self.vectors if self.columns.get(name) == ""]:
            raise ValueError(
                f"columns: {', '.join(bare)}: leave a vector out of `vectors`, not here"
            )
        for key, names in (("vector", self.vectors), ("sha256", self.roles)):
            if unknown := sorted(set(getattr(self, key)) - set(names)):
                raise ValueError(f"{key}.{unknown[0]}: there are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _every_vector_has_its_place(self) -> Profile:
        for vector in self.all_vectors:
            if vector.column and vector.dimension is None:
                raise ValueError(
                    "dimension: must be given when vectors lie inside the Parquet file"
                )
        if not self.known_layouts:
            raise ValueError("mirrors, layouts: at least one of either is needed")
        for kind in ("mirrors", "layouts"):
            for number, layout in enumerate(getattr(self, kind)):
                for role in sorted(set(self.roles) ^ set(layout.roles)):
                    wanted = "is missing" if role in self.roles else "is none of `vectors`"
                    raise ValueError(f"{kind}.{number}.{role}: {wanted}")
        return self

    @property
    def all_vectors(self) -> tuple[Vector, ...]:
        """A description of each of `vectors`."""
        return tuple(
            Vector(
                name=name,
                dimension=own.dimension or self.dimension,
                dtype=own.dtype or self.dtype,
                model=own.model or self.model,
                column=self.columns.get(name, ""),
            )
            for name, own in ((name, self.vector.get(name, VectorFacts())) for name in self.vectors)
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """What a shard has files for."""
        return (*(vector.name for vector in self.all_vectors if not vector.column), METADATA)

    def model_of(self, vector: str) -> str | None:
        """Return which model made a vector; None where the profile does not say, or lacks it."""
        return next((one.model for one in self.all_vectors if one.name == vector), None)

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
        """Return about how large each file of a shard is; nothing where its rows are not known.

        `dimension` is that of vectors whose own is not known.
        """
        rows = self.rows_of(shard)
        if rows is None:
            return {}
        sizes = dict.fromkeys(self.roles, NPY_HEADER_BYTES)
        sizes[METADATA] = rows * self.metadata_bytes_per_row
        for vector in self.all_vectors:
            role = METADATA if vector.column else vector.name
            sizes[role] += rows * (vector.dimension or dimension) * DTYPE_BYTES[vector.dtype]
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
