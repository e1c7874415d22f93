"""Deployment into a real ClickHouse engine: what is called is what was deployed, or as before."""

from __future__ import annotations

import io
import json
import os
import signal
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Timer

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.schema import TableIdentity, ensure_base_table
from laion.encoders.model import ModelDirectory
from laion.encoders.text import load_text_encoder
from laion.errors import (
    ClickHouseUnreachable,
    DeployInProgress,
    UdfCheckFailed,
    UdfTargetUnwritable,
)
from laion.udf.checks import Expectation, check_functions
from laion.udf.deploy import deploy_version
from laion.udf.directories import LOCK, LOCK_STALE_S, LocalDirectory
from laion.udf.version import DEFINITION
from laion.vectors import clip_dimensions
from tests.embedded_server import EmbeddedServer, poll
from tests.models import DIMENSION
from tests.unit.encoders.test_image import noise
from tests.unit.udf.target import Target

FLUSH = "    stdout.flush()\n"
"""Where a worker sends an answer off."""


def test_functions_work_after_a_deployment(target: Target) -> None:
    noise(20, 20).save(target.pictures / "cat.png")
    version = target.version(pictures=str(target.pictures))

    assert target.deploy(version) is True

    expected = load_text_encoder(target.model).encode(["a cat"])[0]
    assert target.encode("a cat") == pytest.approx(expected, abs=1e-5)
    assert target.client.command("SELECT length(encode_image('cat.png'))") == DIMENSION
    assert set(target.files()) == {*version.scripts, DEFINITION}


def test_files_can_be_read_by_the_servers_user(target: Target) -> None:
    version = target.version()
    target.deploy(version)

    modes = {path.suffix: path.stat().st_mode & 0o777 for path in target.scripts.iterdir()}

    assert modes == {".pyz": 0o755, ".json": 0o644, ".xml": 0o644}


def test_the_same_content_again_changes_nothing(target: Target) -> None:
    version = target.version()
    target.deploy(version)
    before, workers = target.files(), target.workers(version.sha)

    assert target.deploy(target.version()) is False

    assert target.files() == before
    assert target.workers(version.sha) == workers


def test_a_new_version_takes_the_place_of_the_old_one(target: Target) -> None:
    old, new = target.version(threads=1), target.version(threads=2)
    target.deploy(old)

    assert target.deploy(new) is True

    assert set(target.files()) == {*new.scripts, DEFINITION}
    assert len(target.workers(new.sha)) == 1
    poll(lambda: not target.workers(old.sha))


def test_a_failed_check_brings_the_previous_version_back(target: Target) -> None:
    old, new = target.version(threads=1), target.version(threads=2)
    target.deploy(old)

    def refuse(client: Client) -> None:
        raise UdfCheckFailed("it is Monday.")

    with pytest.raises(UdfCheckFailed, match=r"Monday\. The functions are those of before"):
        target.deploy(new, check=refuse)

    assert set(target.files()) == {*old.scripts, DEFINITION}
    assert len(target.encode("a cat")) == DIMENSION
    assert target.workers(old.sha)


def test_a_first_deployment_that_fails_leaves_nothing(target: Target) -> None:
    with pytest.raises(UdfCheckFailed, match="no Python where LAION_UDF_PYTHON says"):
        target.deploy(target.version(python="/nowhere/python"))

    assert target.files() == {}
    known = "SELECT count() FROM system.user_defined_functions WHERE name = 'encode_text'"
    assert target.client.command(known) == 0


def test_a_deployment_killed_before_its_check_can_still_go_back(target: Target) -> None:
    old, new = target.version(), target.version(python="/nowhere/python")
    target.deploy(old)
    for name, content in new.scripts.items():
        (target.scripts / name).write_bytes(content)
    target.definition.write_bytes(new.definition)

    with pytest.raises(UdfCheckFailed):
        target.deploy(new)

    assert target.definition.read_bytes() == old.definition
    assert len(target.encode("a cat")) == DIMENSION


def test_a_model_that_answers_otherwise_is_refused(target: Target) -> None:
    version = target.version()
    manifest = ModelDirectory.open(target.model).manifest
    other = replace(manifest.self_test, vector=tuple(-x for x in manifest.self_test.vector))
    expected = Expectation(replace(manifest, self_test=other), version.functions, pool_size=1)

    with pytest.raises(UdfCheckFailed, match="another vector for 'a photo of a cat'"):
        target.deploy(version, check=lambda client: check_functions(client, expected))


def test_a_worker_that_answers_a_row_too_many_is_found_and_rolled_back(target: Target) -> None:
    """ClickHouse does not notice: it takes the row for the first one of the next answer."""
    version = target.version()
    good = version.scripts[f"laion_udf_{version.sha}.pyz"]
    shifting = _with_a_row_too_many(good)
    bad = replace(version, scripts={**version.scripts, f"laion_udf_{version.sha}.pyz": shifting})

    with pytest.raises(UdfCheckFailed, match="another vector for 'a photo of a cat'"):
        target.deploy(bad)

    assert target.files() == {}


def test_a_connection_that_breaks_is_not_held_against_the_functions(
    target: Target, server: EmbeddedServer
) -> None:
    """A first call that takes longer than the client waits may do better when it is tried again."""
    version = target.version()
    good = version.scripts[f"laion_udf_{version.sha}.pyz"]
    late = _with_worker(good, f"    __import__('time').sleep(3)\n{FLUSH}")
    slow = replace(version, scripts={**version.scripts, f"laion_udf_{version.sha}.pyz": late})
    manifest = ModelDirectory.open(target.model).manifest
    expected = Expectation(manifest, version.functions, pool_size=1)

    with (
        server.client(send_receive_timeout=1) as impatient,
        pytest.raises(ClickHouseUnreachable, match="does not answer while asked to call"),
    ):
        target.deploy(slow, check=lambda _: check_functions(impatient, expected))

    assert target.files() == {}


def _with_a_row_too_many(bundle: bytes) -> bytes:
    """The bundle, with a worker that writes the last row of each answer again, a moment later.

    What comes together with an answer, ClickHouse reads and drops.
    """
    late = f"{FLUSH}    __import__('time').sleep(0.1)\n    stdout.write(results[-1])\n{FLUSH}"
    return _with_worker(bundle, late)


def _with_worker(bundle: bytes, answering: str) -> bytes:
    """The bundle, whose worker has other lines where it sends an answer off."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    worker = contents["laion/udf/worker.py"].decode()
    assert worker.count(FLUSH) == 1
    contents["laion/udf/worker.py"] = worker.replace(FLUSH, answering).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return bundle[: bundle.index(b"\n") + 1] + archive.getvalue()


class TestAgreementWithATable:
    def fill(self, target: Target, captions: list[str], encoded: list[str]) -> str:
        table = f"t{time.monotonic_ns()}"
        ensure_base_table(target.client, table, TableIdentity("x", clip_dimensions(DIMENSION)))
        vectors = load_text_encoder(target.model).encode(encoded).tolist()
        target.client.insert(
            table,
            [[row, *pair, pair[1]] for row, pair in enumerate(zip(captions, vectors, strict=True))],
            column_names=["id", "caption", "text_embedding", "image_embedding"],
        )
        return table

    def test_a_table_of_the_same_model_is_accepted(self, target: Target) -> None:
        texts = ["a cat", "a dog", "a house"]
        table = self.fill(target, texts, texts)

        assert target.deploy(target.version(), table) is True

    def test_a_table_of_another_model_is_refused(self, target: Target) -> None:
        table = self.fill(target, ["a cat", "a dog"], ["the sea", "old bread"])

        with pytest.raises(UdfCheckFailed, match="made with another model than 'test'"):
            target.deploy(target.version(), table)
        assert target.files() == {}

    def test_a_table_of_another_dimension_is_refused(self, target: Target) -> None:
        ensure_base_table(target.client, "wide", TableIdentity("x", clip_dimensions(DIMENSION + 1)))

        with pytest.raises(UdfCheckFailed, match="vectors of 9 numbers"):
            target.deploy(target.version(), "wide")

    def test_an_empty_table_says_nothing(self, target: Target) -> None:
        ensure_base_table(target.client, "empty", TableIdentity("x", clip_dimensions(DIMENSION)))

        assert target.deploy(target.version(), "empty") is True


class TestLock:
    def test_two_deployments_do_not_mix(self, target: Target) -> None:
        version = target.version()

        def deploy_another(client: Client) -> None:
            with pytest.raises(DeployInProgress, match="another deployment"):
                target.deploy(target.version(threads=2))

        assert target.deploy(version, check=deploy_another) is True
        assert set(target.files()) == {*version.scripts, DEFINITION}

    def test_what_a_killed_deployment_left_is_removed_in_time(self, target: Target) -> None:
        (target.scripts / LOCK).write_text(json.dumps({"since": time.time() - LOCK_STALE_S - 1}))

        assert target.deploy(target.version()) is True
        assert LOCK not in target.files()

    def test_a_run_takes_over_the_lock_that_it_was_killed_with(self, target: Target) -> None:
        left = {"since": time.time(), "owner": "laion_ingest one"}
        (target.scripts / LOCK).write_text(json.dumps(left))
        deploy = partial(deploy_version, [target.host], target.version(), lambda client: None)

        for other in ("laion_ingest two", ""):
            with pytest.raises(DeployInProgress):
                deploy(other)
        assert deploy("laion_ingest one") is True
        assert LOCK not in target.files()

    @pytest.mark.parametrize("content", ["", "{}", json.dumps({"since": "noon"})])
    def test_a_lock_of_unknown_age_holds(self, target: Target, content: str) -> None:
        (target.scripts / LOCK).write_text(content)

        with pytest.raises(DeployInProgress, match=LOCK):
            target.deploy(target.version())


def test_a_directory_that_is_not_there_is_named(target: Target, tmp_path: Path) -> None:
    host = replace(target.host, scripts=LocalDirectory(tmp_path / "nowhere"))

    with pytest.raises(UdfTargetUnwritable, match="nowhere"):
        deploy_version([host], target.version(), lambda client: None)


class TestInQueries:
    def test_a_bad_row_changes_no_other(self, target: Target) -> None:
        target.deploy(target.version())
        rows = target.client.query(
            "SELECT length(encode_text(t)), cosineDistance(encode_text('b'), "
            "if(empty(encode_text(t)), encode_text('b'), encode_text(t))) < 1e-4 FROM "
            "(SELECT arrayJoin(['a', unhex('FFFE'), 'b', '', 'b']) AS t)"
        ).result_rows

        assert [row[0] for row in rows] == [DIMENSION, 0, DIMENSION, DIMENSION, DIMENSION]
        assert [row[1] for row in rows] == [False, True, True, False, True]

    def test_a_worker_killed_while_idle_costs_one_query_at_most(self, target: Target) -> None:
        version = target.version()
        target.deploy(version)
        expected = target.encode("a cat")
        for pid in target.workers(version.sha):
            os.kill(pid, signal.SIGKILL)
        poll(lambda: not target.workers(version.sha))

        answers = []
        for _ in range(2):
            try:
                answers.append(target.encode("a cat"))
            except Exception as error:
                answers.append(type(error).__name__)

        assert answers[-1] == pytest.approx(expected)

    def test_a_worker_killed_at_work_fails_that_query_only(self, target: Target) -> None:
        version = target.version()
        target.deploy(version)
        expected = target.encode("a cat")
        query = (
            "SELECT encode_text(concat(repeat('word ', 100), toString(number))) FROM numbers({})"
        )
        (pid,) = target.workers(version.sha)

        timer = Timer(0.3, os.kill, (pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(Exception, match=r"(?i)cannot read all data|exited|terminated|pipe"):
            target.client.query(query.format(2_000_000), settings={"max_block_size": 2000})
        timer.join()

        assert target.encode("a cat") == pytest.approx(expected)
