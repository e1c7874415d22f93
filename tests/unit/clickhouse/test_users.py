"""The users' grants are enough, and none of them is too many: the engine enforces them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from laion.clickhouse.derived import drop_derived
from laion.clickhouse.ledger import TaskOrigin
from laion.clickhouse.search_table import lease
from laion.clickhouse.search_table.in_use import read_in_use
from laion.clickhouse.search_table.kinds import kind_of
from laion.clickhouse.search_table.kinds.question import Question
from laion.clickhouse.search_table.plan import IndexOptions
from laion.clickhouse.search_table.search import Target, search
from laion.clickhouse.server import missing_grants
from laion.clickhouse.users import LOADER_EXTRAS, ROLES, read_grants, render_user
from laion.encoders.model import ModelDirectory
from laion.errors import ClickHouseAuthFailed, TableMismatch, UdfCheckFailed
from laion.monitor import check_counts, check_hashes, check_recall, record_findings, run_checks
from laion.udf import deploy
from laion.udf.checks import Expectation, check_functions
from laion.udf.deploy import Host, deploy_version
from laion.udf.directories import LocalDirectory
from laion.udf.options import WorkerOptions
from laion.udf.version import render_version
from laion.web.board import TableChoice, read_board, read_history
from laion.web.status import read_functions, read_search_table
from tests.embedded_server import EmbeddedServer
from tests.models import write_model
from tests.shard_files import unit_vectors, write_little_shard
from tests.unit.clickhouse.shard_steps import (
    OPTIONS,
    ORIGIN,
    TABLE,
    build_search,
    event,
    make_tables,
    publish_files,
)

CODES = "vector_search_use_quantized_codes = 1, vector_search_index_fetch_multiplier = 10"
"""What docs/search.md says a user with readonly = 1 needs in the settings profile."""
SQL = files("laion.clickhouse") / "sql"
DOCS = Path(__file__).parents[3] / "docs" / "security.md"
ALWAYS_READABLE = {"columns", "functions", "settings", "tables"}
"""System tables that need no grant; the first two and the last show what the user may see."""

WHAT_FAILS = {
    "SELECT": "create the ledger",  # Its view reads.
    "INSERT": "create the ledger",  # It notes its structure.
    "CREATE TABLE": "create the ledger",
    "DROP TABLE": "create the ledger",  # Its view is replaced.
    "ALTER ADD COLUMN": "create the ledger",
    "ALTER SETTINGS": "put little_search in place",
    "ALTER DELETE": "publish shard 00000",
    "ALTER ADD INDEX": "create little_search_",
    "ALTER MATERIALIZE INDEX": "build bucket 0 of little_search_",
    "OPTIMIZE": "build bucket 0 of little_search_",
}
"""What a loader without this one grant cannot do, as the error says it."""


def grants_of(role: str, database: str = "laion") -> list[str]:
    return [f"{what} ON {target}" for what, target in read_grants(role, database)]


def database_of(privilege: str) -> str:
    return privilege.lower().replace(" ", "_")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedServer:
    """A server that does not run, with an empty database for each privilege and `laion`."""
    server = EmbeddedServer(tmp_path_factory.mktemp("clickhouse"))
    with server, server.client() as admin:
        for name in ("laion", *map(database_of, WHAT_FAILS)):
            admin.command(f"CREATE DATABASE `{name}`")
    return server


@contextmanager
def client_with(
    server: EmbeddedServer, grants: Iterable[str], database: str = "laion", profile: str = ""
) -> Iterator[Client]:
    server.restrict(grants, profile)
    with server, server.client(database=database, autogenerate_session_id=False) as client:
        yield client


def load_and_search(client: Client, directory: Path) -> None:
    """Do all that a run does in ClickHouse, with two shards in one bucket."""
    # As a real shard does, each gives a part of its own to the search table, to be merged.
    for name in ("min_insert_block_size_rows", "min_insert_block_size_bytes"):
        client.set_client_setting(name, 1)
    ledger = make_tables(client)
    for shard in (0, 1):
        write_little_shard(directory, shard)
        ledger.append([event(shard, "plan", "planned", "")])
        drop_derived(client, publish_files(client, directory, shard, directory).staging_table)
    build_search(client, replace(OPTIONS, buckets=1))


@pytest.fixture(scope="module")
def loaded(
    server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """The server, into whose `laion` a loader with no more than its grants has loaded a table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "SETTLE_S", 0.05)
        with client_with(server, grants_of("loader")) as client:
            assert missing_grants(client) == []
            load_and_search(client, tmp_path_factory.mktemp("source"))
            assert client.command(f"SELECT count() FROM {TABLE}_search") > 0
    return server


@pytest.mark.parametrize("privilege", WHAT_FAILS)
def test_a_loader_without_one_of_its_grants_is_told_which_and_for_what(
    server: EmbeddedServer, tmp_path: Path, privilege: str
) -> None:
    database = database_of(privilege)
    grants = grants_of("loader", database)
    grants.remove(f"{privilege} ON `{database}`.*")

    with client_with(server, grants, database) as client:
        assert missing_grants(client) == [privilege]
        with pytest.raises(ClickHouseAuthFailed) as failed:
            load_and_search(client, tmp_path)

    assert f"lacks a grant to {WHAT_FAILS[privilege]}" in str(failed.value)


def test_every_grant_of_the_loader_is_one_of_these() -> None:
    of_tables = [grant for grant in grants_of("loader") if "ON system." not in grant]

    assert of_tables == [f"{privilege} ON `laion`.*" for privilege in WHAT_FAILS]


def test_a_loader_may_monitor_what_it_has_loaded(loaded: EmbeddedServer) -> None:
    with client_with(loaded, grants_of("loader")) as client:
        checks = {
            "counts": lambda: check_counts(client, TABLE),
            "hashes": lambda: check_hashes(client, TABLE, 0),
            "recall": lambda: check_recall(client, TABLE, queries=3, budget=10**9),
        }
        findings = run_checks(checks)
        record_findings(client, TABLE, ORIGIN.run_id, findings)

    assert {finding.state for finding in findings} == {"ok"}


def test_a_searcher_reads_and_searches_and_cannot_change_anything(loaded: EmbeddedServer) -> None:
    grants, profile = grants_of("searcher"), profile_of("searcher")

    with client_with(loaded, grants, profile=profile) as client:
        target = Target.vector(unit_vectors(1)[0].tolist())
        assert search(client, TABLE, target, limit=3).hits
        assert read_board(client, TableChoice(TABLE, "little"), []).changes.cells
        assert read_history(client, TABLE, 0)
        assert read_search_table(client, TABLE) is not None
        assert read_functions(client) == []
        for statement in (
            f"INSERT INTO {TABLE} (id) VALUES (1)",
            f"TRUNCATE TABLE {TABLE}",
            "CREATE TABLE t (id Int8) ENGINE = Memory",
            "SELECT * FROM url('http://127.0.0.1:1', 'TSV', 'x String')",
        ):
            with pytest.raises(Exception, match=r"ACCESS_DENIED|READONLY"):
                client.command(statement)
        with pytest.raises(Exception, match="shouldn't be greater than 300"):
            client.command("SELECT 1", settings={"max_execution_time": 301})


def check_codes_are_used(client: Client, vector: list[float]) -> None:
    """Who has the settings of docs/search.md compares codes, though with readonly = 1."""
    plan = read_in_use(client, TABLE)
    assert plan is not None
    kind = kind_of(plan.options)
    question = Question("image_embedding", "{q:Array(Float32)}", limit="10")
    place = kind.place(TABLE, plan, in_use=True)
    nearest = kind.nearest(TABLE, place, plan, question, kind.ladder[0])
    shortlisted = []
    for settings in ("readonly = 0", "readonly = 1", f"readonly = 1, {CODES}"):
        text = f"EXPLAIN {nearest} SETTINGS {settings}"
        lines = [row[0] for row in client.query(text, parameters={"q": vector}).result_rows]
        shortlisted.append(kind.is_used(lines, "image_embedding"))
    assert shortlisted == [False, False, True]
    view = f"SELECT id FROM {TABLE}_near(q = {{q:Array(Float32)}}, k = 3)"
    for settings in ("readonly = 1", f"readonly = 1, {CODES}"):
        found = client.query(f"{view} SETTINGS {settings}", parameters={"q": vector})
        assert len(found.result_rows) == 3


def test_a_table_of_the_other_kind_needs_no_other_grants(loaded: EmbeddedServer) -> None:
    options = IndexOptions(kind="quantized", quantization="auto", min_bucket_rows=1)
    vector = unit_vectors(1)[0].tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "SETTLE_S", 0.05)
        with client_with(loaded, grants_of("loader")) as client:
            for run_id in ("first", "second"):
                build_search(client, options, origin=TaskOrigin("laion_ingest", run_id))
    try:
        with client_with(loaded, grants_of("searcher"), profile=profile_of("searcher")) as client:
            found = search(client, TABLE, Target.vector(vector), limit=3)
            seen = client.query(f"SELECT id FROM {TABLE}_near(q = {vector}, k = 3)").result_rows
            assert [hit.id for hit in found.hits] == [row[0] for row in seen]
        # Who is read-only already cannot make a query more so.
        with client_with(loaded, grants_of("searcher")) as client:
            check_codes_are_used(client, vector)
    finally:
        with client_with(loaded, grants_of("loader")) as client:
            back = TaskOrigin("laion_ingest", "back")
            build_search(client, origin=back)


def test_a_deployer_brings_functions_and_needs_each_of_its_grants(
    loaded: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path)
    manifest = ModelDirectory.open(model).manifest
    version = render_version(
        manifest, WorkerOptions(str(model), "", 1), python=sys.executable, pool_size=1
    )
    directories = [
        LocalDirectory(loaded.path / name) for name in ("user_scripts", "user_defined_functions")
    ]
    monkeypatch.setattr(deploy, "LOAD_TIMEOUT_S", 0)

    def bring(grants: list[str], table: str | None = None) -> bool:
        expected = Expectation(manifest, version.functions, pool_size=1, table=table)
        with client_with(loaded, grants, profile=profile_of("deployer")) as client:
            host = Host("here", *directories, client)
            return deploy_version([host], version, lambda c: check_functions(c, expected))

    reads, reloads, lists = grants_of("deployer")
    with pytest.raises(UdfCheckFailed, match="has not loaded encode_text"):
        bring([reads, lists])
    with pytest.raises(TableMismatch, match="there is no table 'little'"):
        bring([reloads, lists, "SHOW DATABASES ON laion.*"], TABLE)
    assert bring([reads, reloads, lists]) is True


def profile_of(role: str) -> str:
    """The settings profile of a role's file, as XML."""
    text = re.search(r"SETTINGS PROFILE .*?SETTINGS (.*?);", read_sql(role), re.DOTALL)
    assert text is not None
    found = re.findall(r"(\w+) = (\d+)(?: MAX (\d+))?", text[1])
    limits = "".join(f"<{name}><max>{top}</max></{name}>" for name, _, top in found if top)
    settings = "".join(f"<{name}>{value}</{name}>" for name, value, _ in found)
    return f"{settings}<constraints>{limits}</constraints>"


def read_sql(role: str) -> str:
    return (SQL / "users" / f"{role}.sql").read_text()


class TestTheFiles:
    @pytest.mark.parametrize("role", ROLES)
    def test_hold_statements_that_the_engine_can_parse(self, client: Client, role: str) -> None:
        text = re.sub(
            r"^--.*$", "", render_user(role, "laion", "secret", LOADER_EXTRAS), flags=re.MULTILINE
        )
        statements = [part.strip() for part in text.split(";") if part.strip()]

        assert len(statements) >= 6
        for statement in statements:
            parsed = client.query("SELECT formatQuery({q:String})", parameters={"q": statement})
            assert parsed.result_rows

    def test_grant_every_system_table_that_is_read_and_no_other(self) -> None:
        package = Path(str(files("laion")))
        sources = [
            path
            for path in (*package.rglob("*.sql"), *package.rglob("*.py"))
            if "embedded" not in path.parts and path.parent.name != "users"
        ]
        read = {
            name
            for path in sources
            for name in re.findall(r"\bsystem\.([a-z_]+)", path.read_text())
        }
        # By names put together in laion.clickhouse.server.
        read |= {"server_settings", "asynchronous_metrics"}
        granted = {
            target.removeprefix("system.")
            for role in ROLES
            for _, target in read_grants(role, "laion", LOADER_EXTRAS)
            if target.startswith("system.")
        }

        assert granted == read - ALWAYS_READABLE

    def test_are_explained_grant_by_grant(self) -> None:
        text = DOCS.read_text()

        for role in ROLES:
            for privilege, target in read_grants(role, "laion", LOADER_EXTRAS):
                name = target if target.startswith("system.") else privilege
                assert f"`{name}`" in text, (role, name)


class TestTheCommand:
    def run(self, *args: str, **passwords: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "laion.clickhouse.users", *args]
        environment = {**os.environ, **passwords}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def test_prints_the_statements_and_no_password(self) -> None:
        done = self.run("--database", "vectors", "searcher", LAION_SEARCHER_PASSWORD="open sesame")

        assert done.returncode == 0
        assert "GRANT SELECT ON `vectors`.* TO laion_searcher;" in done.stdout
        assert "laion_loader" not in done.stdout
        assert "sesame" not in done.stdout

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["--database", "vectors", "loader"], "LAION_LOADER_PASSWORD is not set"),
            (["--database", "my-db", "searcher"], "cannot be used as a table name"),
            (["--database", "vectors", "admin"], "admin: no such role"),
        ],
    )
    def test_says_what_is_missing(self, args: list[str], says: str) -> None:
        done = self.run(*args, LAION_SEARCHER_PASSWORD="secret")

        assert (done.returncode, done.stdout) == (1, "")
        assert says in done.stderr

    def test_run_against_a_server_stops_at_what_it_refuses(
        self, clickhouse_server: EmbeddedServer
    ) -> None:
        """The embedded server cannot make users; what comes before it does."""
        url = f"http://default:{clickhouse_server.password}@127.0.0.1:{clickhouse_server.port}"

        done = self.run(
            *("--database", "made_by_users", "--apply", "searcher"),
            LAION_SEARCHER_PASSWORD="secret",
            CLICKHOUSE_ADMIN_URL=url,
        )

        assert done.returncode == 1
        assert "run CREATE SETTINGS PROFILE OR REPLACE laion_searcher" in done.stderr
        assert clickhouse_server.password not in done.stdout + done.stderr
        with clickhouse_server.client() as client:
            assert client.command("EXISTS DATABASE made_by_users") == 1
            client.command("DROP DATABASE made_by_users")

    def test_without_an_administrator_says_so(self) -> None:
        done = self.run(
            *("--database", "vectors", "--apply", "searcher"),
            LAION_SEARCHER_PASSWORD="secret",
            CLICKHOUSE_ADMIN_URL="http://admin:wrong@127.0.0.1:1",
        )

        assert done.returncode == 1
        assert "accept the administrator" in done.stderr
