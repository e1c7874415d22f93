from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.derived import drop_derived
from laion.clickhouse.ledger import Ledger
from laion.clickhouse.schema import table_exists
from laion.clickhouse.shards.publish import (
    is_already_published,
    publish_shard,
    read_contents,
    verify_staging,
)
from laion.convert import Rules
from laion.errors import AttemptSuperseded, StagingGone, ValidationFailed
from laion.shards import ROWS_PER_SHARD_LIMIT, StagedShard
from laion.vectors import clip_dimensions
from tests.shard_files import (
    DIMENSION,
    ROWS,
    files_of,
    read_metadata,
    read_vectors,
    set_vectors,
    spec_of,
    write_little_shard,
)
from tests.unit.clickhouse.shard_steps import (
    TABLE,
    event,
    make_tables,
    publish,
    publish_files,
    stage_shard,
)

SHARD = 7
SPEC = spec_of("file:///data", SHARD)
VECTORS = clip_dimensions(DIMENSION)
FIRST_ID = SHARD * ROWS_PER_SHARD_LIMIT
LATER = "bbbb0002"
MANY_ROWS = 500


@pytest.fixture
def ledger(client: Client) -> Ledger:
    return make_tables(client)


@pytest.fixture
def staged(client: Client, ledger: Ledger, shard_directory: Path, tmp_path: Path) -> StagedShard:
    return stage_shard(client, write_little_shard(shard_directory, SHARD), tmp_path)


def column(client: Client, name: str, shard: int = SHARD) -> list[Any]:
    query = f"SELECT {name} FROM {TABLE} WHERE shard = {shard} ORDER BY id"
    return [row[0] for row in client.query(query).result_rows]


def parts(client: Client, shard: int) -> list[str]:
    query = (
        "SELECT name FROM system.parts WHERE active AND database = currentDatabase() "
        f"AND table = '{TABLE}' AND partition = '{shard}' ORDER BY name"
    )
    return [row[0] for row in client.query(query).result_rows]


def count(client: Client) -> int:
    return int(client.command(f"SELECT count() FROM {TABLE}"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of MANY_ROWS."""
    directory = tmp_path_factory.mktemp("source")
    write_little_shard(directory, SHARD, MANY_ROWS)
    return directory


@pytest.fixture(scope="module")
def published(
    fresh_database: Callable[[], AbstractContextManager[Client]],
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A database with this shard in the base table."""
    with fresh_database() as client:
        make_tables(client)
        publish_files(client, source, SHARD, tmp_path_factory.mktemp("staging"))
        yield client


class TestPublishedShard:
    """A shard in the base table against its source, row by row."""

    def test_its_ids_count_the_rows(self, published: Client) -> None:
        assert column(published, "id") == list(range(FIRST_ID, FIRST_ID + MANY_ROWS))

    @pytest.mark.parametrize("role", ["image_embedding", "text_embedding"])
    def test_its_vectors_are_those_of_the_source(
        self, published: Client, source: Path, role: str
    ) -> None:
        np.testing.assert_array_equal(column(published, role), read_vectors(source, role, SHARD))

    @pytest.mark.parametrize("name", ["url", "caption", "NSFW", "LICENSE"])
    def test_its_texts_are_those_of_the_source_and_nulls_are_empty(
        self, published: Client, source: Path, name: str
    ) -> None:
        expected = read_metadata(source, SHARD)[name]

        assert column(published, name) == [text or "" for text in expected.to_pylist()]

    def test_its_similarities_are_those_of_the_source_and_nulls_are_nan(
        self, published: Client, source: Path
    ) -> None:
        expected = read_metadata(source, SHARD)["similarity"]

        assert expected.null_count > 0
        np.testing.assert_array_equal(
            np.array(column(published, "similarity"), np.float32),
            expected.to_numpy().astype(np.float32),
        )

    @pytest.mark.parametrize("name", ["width", "height", "original_width", "original_height"])
    def test_its_sizes_are_those_of_the_source(
        self, published: Client, source: Path, name: str
    ) -> None:
        assert column(published, name) == read_metadata(source, SHARD)[name].to_pylist()

    def test_its_keys_are_those_of_the_source_in_text(
        self, published: Client, source: Path
    ) -> None:
        expected = read_metadata(source, SHARD)["key"]

        assert column(published, "key") == [str(key) for key in expected.to_pylist()]


class TestPublish:
    def test_the_contents_are_returned(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        contents = publish_shard(client, ledger, staged)

        assert (contents.rows, contents.distinct_ids) == (ROWS, ROWS)
        assert contents == read_contents(client, TABLE, SHARD, VECTORS)

    def test_publishing_again_changes_nothing(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        first = publish(client, staged)

        assert publish(client, staged) == first
        assert count(client) == ROWS

    def test_a_later_attempt_replaces_the_shard(
        self, client: Client, staged: StagedShard, shard_directory: Path, tmp_path: Path
    ) -> None:
        publish(client, staged)
        write_little_shard(shard_directory, SHARD, rows=ROWS - 10)

        publish_files(client, shard_directory, SHARD, tmp_path, attempt=LATER)

        assert count(client) == ROWS - 10

    def test_other_shards_keep_their_parts(
        self, client: Client, staged: StagedShard, shard_directory: Path, tmp_path: Path
    ) -> None:
        write_little_shard(shard_directory, 8)
        publish_files(client, shard_directory, 8, tmp_path)
        before = parts(client, 8)

        publish(client, staged)

        assert before
        assert parts(client, 8) == before

    def test_allowed_bad_vectors_are_published_as_they_are(
        self, client: Client, ledger: Ledger, shard_directory: Path, tmp_path: Path
    ) -> None:
        write_little_shard(shard_directory, SHARD)
        set_vectors(shard_directory, "image_embedding", {3: np.nan, 4: 0.0}, SHARD)

        publish_files(client, shard_directory, SHARD, tmp_path, rules=Rules(max_bad_vectors=2))

        np.testing.assert_array_equal(
            column(client, "image_embedding"),
            read_vectors(shard_directory, "image_embedding", SHARD),
        )


TAMPERINGS = {
    "a row is missing": "DELETE FROM {staging} WHERE id = {first}",
    "the last row is missing": "DELETE FROM {staging} WHERE id = {first} + 59",
    "all rows are missing": "TRUNCATE TABLE {staging}",
    "a row is doubled": "INSERT INTO {staging} SELECT * FROM {staging} LIMIT 1",
    "all rows are doubled": "INSERT INTO {staging} SELECT * FROM {staging}",
    "a row is foreign": "INSERT INTO {staging} (id, shard) VALUES (5, 7)",
    "a vector is longer": (
        "ALTER TABLE {staging} UPDATE image_embedding = arrayPushBack(image_embedding, 0) "
        "WHERE id = {first} SETTINGS mutations_sync = 2"
    ),
    "a vector is empty": (
        "ALTER TABLE {staging} UPDATE text_embedding = [] WHERE id = {first} "
        "SETTINGS mutations_sync = 2"
    ),
}


def tamper(client: Client, staged: StagedShard, statement: str) -> None:
    client.command(statement.format(staging=staged.staging_table, first=FIRST_ID))


class TestValidation:
    @pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS)
    def test_staging_that_is_not_the_shard_is_refused(
        self, client: Client, ledger: Ledger, staged: StagedShard, statement: str
    ) -> None:
        tamper(client, staged, statement)

        with pytest.raises(ValidationFailed, match=r"shard 00007: .*Nothing was published"):
            publish_shard(client, ledger, staged)
        assert count(client) == 0

    @pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS)
    def test_what_was_published_before_stays_untouched(
        self, client: Client, ledger: Ledger, staged: StagedShard, statement: str
    ) -> None:
        publish(client, staged)
        before = parts(client, SHARD)
        tamper(client, staged, statement)

        with pytest.raises(ValidationFailed):
            publish_shard(client, ledger, staged)
        assert parts(client, SHARD) == before
        assert count(client) == ROWS

    def test_all_numbers_are_told(self, client: Client, staged: StagedShard) -> None:
        tamper(client, staged, TAMPERINGS["a row is doubled"])

        with pytest.raises(ValidationFailed) as caught:
            verify_staging(client, staged)
        for words in (
            "the Parquet file has 60 rows",
            "the insert reported 60",
            "holds 61 with 60 distinct ids",
            f"from {FIRST_ID} to {FIRST_ID + ROWS - 1}",
        ):
            assert words in str(caught.value)

    def test_a_missing_staging_table_tells_what_to_clear(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        drop_derived(client, staged.staging_table)

        with pytest.raises(StagingGone, match=r"shard 00007: .*clear this task"):
            publish_shard(client, ledger, staged)

    def test_the_hash_does_not_depend_on_the_order_or_the_parts(
        self, client: Client, staged: StagedShard
    ) -> None:
        client.command(f"CREATE TABLE other AS {TABLE}")
        for half in ("<", ">="):
            client.command(
                f"INSERT INTO other SELECT * FROM {staged.staging_table} "
                f"WHERE id {half} {FIRST_ID + 30} ORDER BY id DESC"
            )

        ours = read_contents(client, staged.staging_table, SHARD, VECTORS)

        assert read_contents(client, "other", SHARD, VECTORS) == ours

    @pytest.mark.parametrize(
        "change", ["caption = concat(caption, ' ')", "similarity = 0.125", "width = 1"]
    )
    def test_the_hash_depends_on_the_values(
        self, client: Client, staged: StagedShard, change: str
    ) -> None:
        before = read_contents(client, staged.staging_table, SHARD, VECTORS)

        tamper(
            client,
            staged,
            f"ALTER TABLE {{staging}} UPDATE {change} WHERE id = {{first}} "
            "SETTINGS mutations_sync = 2",
        )

        after = read_contents(client, staged.staging_table, SHARD, VECTORS)
        assert after.rows == before.rows
        assert after.hash != before.hash


class TestSuperseded:
    def test_an_attempt_does_not_replace_a_later_one(
        self,
        client: Client,
        ledger: Ledger,
        staged: StagedShard,
        shard_directory: Path,
        tmp_path: Path,
    ) -> None:
        write_little_shard(shard_directory, SHARD, rows=ROWS - 10)
        publish_files(client, shard_directory, SHARD, tmp_path, attempt=LATER)

        with pytest.raises(AttemptSuperseded, match=f"attempt {LATER} of run run_1"):
            publish_shard(client, ledger, staged)
        assert count(client) == ROWS - 10

    def test_an_attempt_replaces_an_earlier_one_that_was_published_later(
        self,
        client: Client,
        ledger: Ledger,
        staged: StagedShard,
        shard_directory: Path,
        tmp_path: Path,
    ) -> None:
        write_little_shard(shard_directory, SHARD, rows=ROWS - 10)
        later = stage_shard(client, files_of(shard_directory, SHARD, attempt=LATER), tmp_path)
        publish(client, staged)

        publish(client, later)

        assert count(client) == ROWS - 10


class TestAlreadyPublished:
    def test_an_attempt_that_is_in_the_base_table_is_recognised(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        publish(client, staged)
        drop_derived(client, staged.staging_table)

        assert is_already_published(client, ledger, staged)

    def test_an_attempt_that_was_never_published_is_not(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        assert not is_already_published(client, ledger, staged)

    def test_an_attempt_that_was_changed_since_is_not(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        publish(client, staged)

        client.command(f"DELETE FROM {TABLE} WHERE id = {FIRST_ID}")

        assert not is_already_published(client, ledger, staged)

    def test_an_attempt_that_the_ledger_does_not_know_is_not(
        self, client: Client, ledger: Ledger, staged: StagedShard
    ) -> None:
        publish_shard(client, ledger, staged)
        ledger.append([event(SHARD, "publish", "failed")])

        assert not is_already_published(client, ledger, staged)


def test_dropping_staging_drops_one_table_and_can_be_repeated(
    client: Client, staged: StagedShard
) -> None:
    for _ in range(2):
        drop_derived(client, staged.staging_table)

    assert not table_exists(client, staged.staging_table)
    assert table_exists(client, TABLE)
