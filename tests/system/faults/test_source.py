"""Sources whose files are there and wrong, or not all there."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.faults.world import ROWS, World


@pytest.mark.scenario(
    done="Nothing of a shard in the middle of a source that has no list of its shards",
    promised="`all` plans it and those behind it; it is missing and the run red, or tolerated",
)
def test_hole(world: World) -> None:
    world.write_shards(300, 300, 300)
    for path in world.source.rglob("*_1.*"):
        path.unlink()
    run, tolerant = world.start_run("all"), world.start_run("all", tolerate_failed_shards=1)

    ended = run.load_shards()
    gate = run.confirm()

    assert [(o.state, o.error_class) for o in ended] == [
        ("success", ""),
        ("failed", "SourceMissing"),
        ("success", ""),
    ]
    assert gate.state == "failed"
    assert "2 of 3 planned shards" in gate.error
    assert "Missing: shards 1." in gate.error
    tolerant.load_shards()
    assert tolerant.confirm().value["missing"] == [1]
    world.expect(published=[0, 2])


@pytest.mark.scenario(
    done="The metadata of a shard moved by a row",
    promised="the shard fails, and is loaded as it is with accept_misaligned",
)
def test_metadata_moved_by_a_row(world: World) -> None:
    world.write_shards(ROWS)
    path = world.source / "metadata" / "metadata_0.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(1), table.slice(0, 1)]), path)
    run = world.start_run("0")

    (ended,) = run.load_shards()

    assert (ended.state, ended.error_class) == ("failed", "Misaligned")
    assert run.confirm().state == "failed"
    world.expect(published=[])
    assert world.start_run("0", accept_misaligned=True).load_shards()[0].state == "success"
    world.expect(published=[0])
