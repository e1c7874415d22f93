from __future__ import annotations

import pytest

from laion.datasets import load_profile, parse_profile, profile_names
from laion.errors import BadProfile, BadShards, UnknownDataset

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
    assert {"clip_retrieval", "laion400m", "sample"} <= set(profile_names())


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
    ],
)
def test_a_malformed_or_unknown_key_is_named(line: str, key: str) -> None:
    with pytest.raises(BadProfile, match=rf"profiles/mine\.toml: .*{key}"):
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
    with pytest.raises(BadProfile, match="layouts"):
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
