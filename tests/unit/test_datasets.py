from __future__ import annotations

from pathlib import Path

import pytest

from laion.datasets import check_profiles, load_profile, parse_profile, profile_names
from laion.errors import BadProfile, BadSetting, BadShards, UnknownDataset
from laion.settings import get_settings
from laion.vectors import Vector

LAYOUT = """
[[layouts]]
image_embedding = "i_{shard}.npy"
text_embedding = "t_{shard}.npy"
metadata = "m_{shard}.parquet"
"""


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name: str) -> None:
    profile = load_profile(name)

    assert profile.name == name
    assert profile.title


def test_the_profiles_that_people_rely_on_are_shipped() -> None:
    assert profile_names() == [
        "clip_retrieval",
        "laion2b_en",
        "laion400m",
        "laion5b_100m",
        "sample",
    ]


def test_laion400m_has_410_shards_and_all_its_rows() -> None:
    profile = load_profile("laion400m")

    assert profile.all_shards() == list(range(410))
    assert sum(profile.rows_of(shard) or 0 for shard in profile.all_shards()) == 407_314_954


@pytest.mark.parametrize(("shard", "rows"), [(0, 1_000_448), (8, 642_675), (409, 518_720)])
def test_laion400m_knows_the_rows_of_odd_shards(shard: int, rows: int) -> None:
    assert load_profile("laion400m").rows_of(shard) == rows


def test_a_dataset_without_a_manifest_knows_no_rows_and_no_list_of_shards() -> None:
    profile = load_profile("clip_retrieval")

    assert profile.rows_of(0) is None
    with pytest.raises(BadShards, match="'0-2'"):
        profile.all_shards()


def test_an_unknown_dataset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownDataset, match=r"'laion4000m'.*laion400m"):
        load_profile("laion4000m")


@pytest.mark.parametrize("name", ["../errors", "", "laion400m.toml"])
def test_a_name_never_leads_out_of_the_profiles(name: str) -> None:
    with pytest.raises(UnknownDataset):
        load_profile(name)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('dimension = "wide"', "dimension"),
        ("dimension = 0", "dimension"),
        ("colour = 1", "colour"),
        ('shards = "0-"', "shards"),
        ("rows_of_odd_shards = { x = 1 }", "rows_of_odd_shards"),
        ("digits = 4", "digits"),
        ('dtype = "float64"', "dtype"),
        ('sha256 = { metadata = { 0 = "abc" } }', r"sha256\.metadata\.0"),
        ("sha256 = { pictures = {} }", r"sha256\.pictures"),
        ('vectors = ["picture"]', "vectors"),
        ("vectors = []", "vectors"),
        ('columns = { colour = "c" }', "columns"),
        ('required_columns = ["image_embedding"]', "required_columns"),
        ('dimension = 4\ncolumns = { text_embedding = "" }', "columns"),
        ('vectors = ["image_embedding"]', r"layouts\.0\.text_embedding: is none"),
        ('columns = { text_embedding = "vector" }', "dimension"),
        (
            'dimension = 4\ncolumns = { text_embedding = "vector" }',
            r"layouts\.0\.text_embedding: is none",
        ),
    ],
)
def test_a_malformed_or_unknown_key_is_named(line: str, key: str) -> None:
    with pytest.raises(BadProfile, match=rf"profile mine\.toml: .*{key}"):
        parse_profile("mine", f'title = "Mine"\n{line}\n{LAYOUT}')


def test_a_malformed_shards_key_is_named_even_where_rows_are_counted() -> None:
    with pytest.raises(BadProfile, match="shards: "):
        parse_profile("mine", f'title = "Mine"\nshards = "9-0"\nrows_total = 5\n{LAYOUT}')


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadProfile, match="title: Field required"):
        parse_profile("mine", LAYOUT)


def test_a_layout_without_the_place_of_the_number_is_named() -> None:
    with pytest.raises(BadProfile, match=r"layouts\.0\.metadata"):
        parse_profile("mine", 'title = "Mine"' + LAYOUT.replace("m_{shard}", "m"))


def test_a_profile_without_layouts_is_refused() -> None:
    with pytest.raises(BadProfile, match=r"mirrors, layouts: at least one"):
        parse_profile("mine", 'title = "Mine"\nlayouts = []')


def test_text_that_is_no_toml_is_refused() -> None:
    with pytest.raises(BadProfile, match="is no TOML"):
        parse_profile("mine", "title = ")


def test_rows_that_do_not_add_up_are_refused_with_both_sums() -> None:
    head = 'title = "Mine"\nshards = "0-2"\nrows_per_shard = 10\nrows_total = 31\n'

    with pytest.raises(BadProfile, match="rows_total is 31, but the shards have 30"):
        parse_profile("mine", head + LAYOUT)


def test_shards_of_the_dataset_are_taken() -> None:
    assert load_profile("laion400m").check_shards([0, 409]) == [0, 409]


def test_shards_outside_the_dataset_are_named() -> None:
    with pytest.raises(BadShards, match=r"has shards 0-409, not 410-411,500"):
        load_profile("laion400m").check_shards([0, 410, 411, 500])


def test_a_dataset_without_a_manifest_takes_any_shard() -> None:
    assert load_profile("clip_retrieval").check_shards([12_345]) == [12_345]


@pytest.mark.parametrize(("digits", "name"), [(1, "i_7.npy"), (4, "i_0007.npy")])
def test_a_layout_pads_the_number_of_a_shard(digits: int, name: str) -> None:
    layout = parse_profile("mine", 'title = "Mine"' + LAYOUT).layouts[0]

    assert layout.paths(7, digits)["image_embedding"] == name


def test_a_layout_that_lacks_a_vector_is_named() -> None:
    layout = LAYOUT.replace('text_embedding = "t_{shard}.npy"\n', "")

    with pytest.raises(BadProfile, match=r"layouts\.0\.text_embedding: is missing"):
        parse_profile("mine", 'title = "Mine"' + layout)


def test_a_mirror_needs_a_url() -> None:
    with pytest.raises(BadProfile, match=r"mirrors\.0\.url"):
        parse_profile("mine", 'title = "Mine"' + LAYOUT.replace("layouts", "mirrors"))


def test_vectors_inside_the_metadata_file_have_no_file_of_their_own() -> None:
    profile = load_profile("laion5b_100m")

    assert profile.roles == ("metadata",)
    assert profile.mirrors[0].layout.paths(3, 1) == {
        "metadata": "laion5b_100m_part_3_of_10.parquet"
    }


def test_laion2b_pads_its_numbers_and_each_mirror_has_its_own_paths() -> None:
    profile = load_profile("laion2b_en")

    paths = [mirror.layout.paths(7, profile.digits[0])["metadata"] for mirror in profile.mirrors]

    assert paths == ["metadata/metadata_0007.parquet", "laion2B-en-metadata/metadata_0007.parquet"]
    assert len(profile.all_shards()) == 2314


def test_the_size_of_files_is_known_from_rows_dimension_and_dtype() -> None:
    sizes = load_profile("laion400m").file_bytes(0, 512)

    assert sizes["image_embedding"] == 128 + 1_000_448 * 512 * 2
    assert sizes["metadata"] == 1_000_448 * 155
    assert load_profile("clip_retrieval").file_bytes(0, 512) == {}


def test_digests_are_known_by_role_and_shard() -> None:
    digest = "0" * 64
    known = f'title = "Mine"\nsha256 = {{ metadata = {{ 3 = "{digest}" }} }}\n'

    profile = parse_profile("mine", known + LAYOUT)

    assert profile.digests_of(3) == {"metadata": digest}
    assert profile.digests_of(4) == {}


def test_a_vector_inside_the_metadata_file_makes_it_larger() -> None:
    inside = parse_profile(
        "mine",
        'title = "Mine"\ndimension = 4\ndtype = "float32"\nrows_per_shard = 10\n'
        'vectors = ["image_embedding"]\ncolumns = { image_embedding = "v" }\n'
        '[[layouts]]\nmetadata = "m_{shard}.parquet"',
    )

    assert inside.file_bytes(0, 4) == {"metadata": 10 * (155 + 4 * 4)}


def test_a_dataset_is_added_by_adding_a_file(own_profiles: Path) -> None:
    (own_profiles / "mine.toml").write_text('title = "Mine"' + LAYOUT)

    assert load_profile("mine").title == "Mine"
    assert {"mine", "sample"} <= set(profile_names())


def test_the_example_of_the_documentation_is_a_profile() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
    example = text.split("```toml\n")[1].split("```")[0]

    profile = parse_profile("my_pictures", example)

    assert profile.mirrors[0].layout.paths(3, profile.digits[0])["metadata"] == (
        "metadata/metadata_0003.parquet"
    )
    assert profile.rows_of(3) == 100_000


def test_a_broken_profile_is_found_without_being_asked_for(own_profiles: Path) -> None:
    (own_profiles / "mine.toml").write_text("title = 5" + LAYOUT)

    with pytest.raises(BadProfile, match=r"profile mine\.toml: title"):
        check_profiles()


def test_a_directory_of_profiles_that_is_not_there_is_told(
    own_profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAION_PROFILES_DIR", str(own_profiles / "no"))
    get_settings.cache_clear()

    with pytest.raises(BadSetting, match="LAION_PROFILES_DIR"):
        profile_names()


def test_a_vector_has_what_the_profile_says_of_it_and_else_what_it_says_of_all() -> None:
    profile = parse_profile(
        "mine",
        'title = "Mine"\ndimension = 512\nmodel = "clip"\nvectors = ["image_embedding", "tags"]\n'
        'columns = { tags = "tag_vector" }\n[vector.tags]\ndimension = 64\ndtype = "float32"\n'
        'model = "words"\n[[layouts]]\nimage_embedding = "{shard}.npy"\nmetadata = "{shard}.pq"\n',
    )

    assert profile.all_vectors == (
        Vector("image_embedding", 512, "float16", "clip"),
        Vector("tags", 64, "float32", "words", column="tag_vector"),
    )
    assert profile.roles == ("image_embedding", "metadata")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('vectors = ["shard"]', r"vectors: shard: the table has such a column"),
        ('vectors = ["URL"]', r"vectors: URL: the table has such a column"),
        ('vectors = ["image_embedding", "image_embedding"]', r"vectors: each can be there once"),
        ('vectors = ["image", "image_embedding"]', r"vectors: each can be there once"),
        ('vectors = ["distance"]', r"vectors: distance: the table has such a column"),
        ('vectors = ["a b"]', r"vectors\.0"),
        ("[vector.image_embeddng]\ndimension = 3", r"vector\.image_embeddng: there are image_"),
        ("[vector.image_embedding]\ndimensions = 3", r"vector\.image_embedding\.dimensions"),
    ],
)
def test_a_vector_that_cannot_be_is_named(text: str, problem: str) -> None:
    layout = '[[layouts]]\nimage_embedding = "{shard}.npy"\ntext_embedding = "t{shard}.npy"\n'

    with pytest.raises(BadProfile, match=problem):
        parse_profile("mine", f'title = "Mine"\n{text}\n{layout}metadata = "{{shard}}.pq"\n')
