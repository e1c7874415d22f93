"""Columns of other people's Parquet files, as the base table has them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from laion.columns import COUNT, NUMBER, TEXT, Column
from laion.errors import BadMetadata, WrongDimension
from laion.metadata import (
    has_value,
    map_columns,
    read_column,
    vector_column,
    vector_dtype,
)

text, count, number = (Column("ours", kind) for kind in (TEXT, COUNT, NUMBER))
VECTORS = [[1.0, 0.0], [0.6, 0.8]]


def batch(values: object, kind: pa.DataType) -> pa.RecordBatch:
    return pa.record_batch({"v": pa.array(values, kind)})


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.list_(pa.float32()), np.float32),
        (pa.large_list(pa.float32()), np.float32),
        (pa.list_(pa.float32(), 2), np.float32),
        (pa.list_(pa.float16()), np.float16),
        (pa.list_(pa.float64()), np.float32),
    ],
)
def test_lists_of_floats_of_any_kind_are_vectors(kind: pa.DataType, dtype: type) -> None:
    rows = batch(
        np.array(VECTORS, np.float16).tolist()
        if dtype is np.float32
        else [list(map(np.float16, vector)) for vector in VECTORS],
        kind,
    )

    found = vector_column(rows, "v", 2, vector_dtype(rows.schema, "v"))

    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(VECTORS, np.float16).astype(dtype))


def test_a_slice_of_a_batch_has_its_own_rows() -> None:
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        rows = batch([[0.0, 1.0], *VECTORS], kind).slice(1)

        found = vector_column(rows, "v", 2, np.dtype(np.float32))

        np.testing.assert_array_equal(found, np.array(VECTORS, np.float32))


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.float32(), pa.string()])
def test_a_column_that_holds_no_vectors_is_named(kind: pa.DataType) -> None:
    with pytest.raises(BadMetadata, match=r"column 'v' holds .*, not lists of floats"):
        vector_dtype(pa.schema([("v", kind)]), "v")


def test_an_absent_column_is_told_with_those_there_are() -> None:
    with pytest.raises(BadMetadata, match="no column 'vector'; its columns are v"):
        vector_dtype(pa.schema([("v", pa.string())]), "vector")


@pytest.mark.parametrize("values", [[[1.0, 0.0], None], [[1.0, None]]])
def test_a_vector_or_a_component_that_is_null_is_refused(values: object) -> None:
    with pytest.raises(BadMetadata, match=r"without a vector|null components"):
        vector_column(batch(values, pa.list_(pa.float32())), "v", 2, np.dtype(np.float32))


@pytest.mark.parametrize("values", [[[1.0, 0.0], [1.0]], [[1.0, 0.0, 0.0]], [[]]])
def test_vectors_of_another_length_are_refused(values: object) -> None:
    with pytest.raises(WrongDimension, match="2 are expected"):
        vector_column(batch(values, pa.list_(pa.float32())), "v", 2, np.dtype(np.float32))


def test_a_double_that_float32_cannot_hold_becomes_infinite() -> None:
    rows = batch([[1e300, -1e300], [1e-300, 0.5]], pa.list_(pa.float64()))

    found = vector_column(rows, "v", 2, np.dtype(np.float32))

    np.testing.assert_array_equal(found, np.float32([[np.inf, -np.inf], [0, 0.5]]))


def test_absent_columns_are_filled() -> None:
    rows = batch([1, 2], pa.int64())

    assert read_column(rows, text, None).to_pylist() == ["", ""]
    assert read_column(rows, count, None).to_pylist() == [0, 0]
    assert np.isnan(read_column(rows, number, None).to_numpy()).all()


def test_whole_numbers_that_pandas_has_written_as_doubles_are_read_as_numbers_and_as_text() -> None:
    rows = batch([7.0, float("nan"), None], pa.float64())

    assert read_column(rows, count, "v").to_pylist() == [7, 0, 0]
    assert read_column(rows, text, "v").to_pylist() == ["7", "", ""]


@pytest.mark.parametrize(
    ("values", "kind", "ours"),
    [
        ([640, -1], pa.int64(), count),
        (["0.3", ""], pa.string(), number),
        ([b"caf\xe9", b"b"], pa.binary(), text),
    ],
)
def test_a_column_whose_values_cannot_be_used_is_named(
    values: list[object], kind: pa.DataType, ours: Column
) -> None:
    with pytest.raises(BadMetadata, match="column 'v' cannot be read as"):
        read_column(batch(values, kind), ours, "v")


WANTED = ("url", "caption", "width", "NSFW")


def schema(*names: str, null: str = "") -> pa.Schema:
    kinds = [(name, pa.null() if name == null else pa.string()) for name in names]
    return pa.schema(kinds)


class TestMapping:
    def test_columns_of_our_own_names_are_taken(self) -> None:
        columns = map_columns(schema("NSFW", "width", "caption", "url"), WANTED)

        assert columns.theirs == {name: name for name in WANTED}
        assert columns.describe() == ""

    def test_the_names_of_img2dataset_are_known_and_reported(self) -> None:
        columns = map_columns(schema("URL", "TEXT", "WIDTH", "punsafe"), WANTED)

        assert columns.theirs == {"url": "URL", "caption": "TEXT", "width": "WIDTH"}
        assert columns.absent == ("NSFW",)
        assert columns.ignored == ("punsafe",)
        for words in ("caption from 'TEXT'", "in every row: NSFW.", "not loaded: punsafe."):
            assert words in columns.describe()

    def test_an_exact_name_comes_before_others_that_mean_the_same(self) -> None:
        columns = map_columns(schema("TEXT", "caption", "Caption", "URL", "url"), WANTED)

        assert columns.theirs == {"url": "url", "caption": "caption"}
        assert columns.ignored == ("TEXT", "Caption", "URL")

    def test_its_own_name_in_capitals_comes_before_an_alias(self) -> None:
        assert map_columns(schema("TEXT", "CAPTION"), WANTED).theirs == {"caption": "CAPTION"}

    def test_a_name_that_the_profile_gives_is_the_only_one(self) -> None:
        columns = map_columns(schema("caption", "alt"), WANTED, {"caption": "alt"})

        assert columns.theirs == {"caption": "alt"}
        assert columns.ignored == ("caption",)

    def test_a_column_that_the_profile_leaves_out_is_absent(self) -> None:
        columns = map_columns(schema("URL", "width"), WANTED, {"url": "", "width": ""})

        assert columns.theirs == {}
        assert columns.ignored == ("URL", "width")

    def test_a_column_that_the_profile_gives_is_no_alias_of_another(self) -> None:
        columns = map_columns(schema("TEXT"), ("caption", "key"), {"key": "TEXT"})

        assert columns.theirs == {"key": "TEXT"}

    def test_a_nested_column_is_not_taken_for_another_name_of_ours(self) -> None:
        nested = pa.schema([("TEXT", pa.list_(pa.string())), ("URL", pa.string())])

        columns = map_columns(nested, WANTED)

        assert columns.theirs == {"url": "URL"}
        assert columns.ignored == ("TEXT",)

    def test_a_name_that_the_profile_gives_and_the_file_lacks_is_refused(self) -> None:
        with pytest.raises(
            BadMetadata, match=r"'TXT', which the profile names for caption; .* URL, TEXT$"
        ):
            map_columns(schema("URL", "TEXT"), WANTED, {"caption": "TXT"})

    @pytest.mark.parametrize(
        "names", [("caption", "caption"), ("Text", "TEXT"), ("URL", "URL"), ("Url", "URL", "TEXT")]
    )
    def test_two_columns_that_could_be_the_same_are_refused(self, names: tuple[str, ...]) -> None:
        with pytest.raises(BadMetadata, match="more than one column that could be"):
            map_columns(schema(*names), WANTED)

    def test_a_name_that_the_profile_gives_must_be_there_once(self) -> None:
        with pytest.raises(BadMetadata, match="could be caption: 'alt'"):
            map_columns(schema("alt", "alt"), WANTED, {"caption": "alt"})

    def test_two_columns_of_a_name_that_nobody_takes_are_no_harm(self) -> None:
        assert map_columns(schema("caption", "exif", "exif"), WANTED).ignored == ("exif",)

    def test_a_required_column_that_is_missing_is_refused_with_what_there_is(self) -> None:
        with pytest.raises(BadMetadata, match=r"'url' with values.*its columns are caption, link"):
            map_columns(schema("caption", "link"), WANTED, required=["caption", "url"])

    def test_a_column_of_nothing_but_nulls_is_absent_and_no_required_one(self) -> None:
        nulls = schema("caption", "url", null="url")

        assert "url" in map_columns(nulls, WANTED).absent
        assert map_columns(nulls, WANTED).ignored == ()
        with pytest.raises(BadMetadata, match="'url' with values"):
            map_columns(nulls, WANTED, required=["url"])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (read_column(batch(["", None], pa.string()), text, "v"), False),
        (read_column(batch(["", "x"], pa.string()), text, "v"), True),
        (read_column(batch([0, None], pa.int64()), count, "v"), False),
        (read_column(batch([0, 3], pa.int64()), count, "v"), True),
        (read_column(batch([None, float("nan")], pa.float64()), number, "v"), False),
        (read_column(batch([None, -0.1], pa.float64()), number, "v"), True),
    ],
)
def test_a_column_has_a_value_when_a_row_is_not_empty(column: pa.Array, expected: bool) -> None:
    assert has_value(column) is expected
