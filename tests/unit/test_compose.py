"""What can be known of the Docker Compose stack without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml
from cryptography.fernet import Fernet

from laion.datasets import load_profile
from laion.sample.__main__ import _parser as sample_parser
from laion.settings import Settings

PROJECT = Path(__file__).parents[2]
COMPOSE_TEXT = (PROJECT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LONG_RUNNING = {n: s for n, s in SERVICES.items() if s["restart"] == "unless-stopped"}
ONE_SHOT = SERVICES.keys() - LONG_RUNNING.keys()
ENVIRONMENTS = {name: service.get("environment", {}) for name, service in SERVICES.items()}
AIRFLOW_ENVIRONMENT = ENVIRONMENTS["airflow-scheduler"]

AIRFLOW_DOCKER = PROJECT / "docker" / "airflow"
DOCKERFILE = (AIRFLOW_DOCKER / "Dockerfile").read_text()
DOCS = (PROJECT / "docs" / "docker.md").read_text()

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<operator>[?-])(?P<rest>[^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|CONN")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+)", re.MULTILINE)
LOCALHOST = "127.0.0.1"


def variables() -> list[dict[str, str]]:
    return [match.groupdict() for match in VARIABLE.finditer(COMPOSE_TEXT)]


def pins(lock: Path) -> dict[str, str]:
    return dict(PIN.findall(lock.read_text()))


def make_env(file: Path) -> subprocess.CompletedProcess[str]:
    script = PROJECT / "scripts" / "env.sh"
    return subprocess.run(["bash", script, file], check=True, capture_output=True, text=True)


def read_env(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


class TestTheFile:
    def test_follows_the_compose_specification(self) -> None:
        from check_jsonschema.builtin_schemas import get_builtin_schema

        schema = get_builtin_schema("vendor.compose-spec")

        jsonschema.validate(COMPOSE, schema)

    def test_has_the_parts_of_airflow_its_databases_and_the_sample(self) -> None:
        assert LONG_RUNNING.keys() == {
            "postgres",
            "clickhouse",
            "sample",
            "airflow-apiserver",
            "airflow-scheduler",
            "airflow-dag-processor",
            "airflow-triggerer",
        }
        assert {"airflow-init", "sample-data"} == ONE_SHOT

    @pytest.mark.parametrize("name", SERVICES)
    def test_pins_every_image(self, name: str) -> None:
        image, _, tag = SERVICES[name]["image"].rpartition(":")

        assert image
        assert re.match(r"\d+\.\d+", tag)

    @pytest.mark.parametrize("name", LONG_RUNNING)
    def test_every_long_running_service_has_a_health_check_and_time_to_stop(
        self, name: str
    ) -> None:
        assert SERVICES[name]["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}
        assert "stop_grace_period" in SERVICES[name]

    @pytest.mark.parametrize("name", SERVICES)
    def test_nothing_runs_as_root(self, name: str) -> None:
        assert str(SERVICES[name]["user"]).partition(":")[0] not in ("", "0", "root")

    @pytest.mark.parametrize("name", SERVICES)
    def test_ports_are_published_on_the_loopback_interface_only(self, name: str) -> None:
        for port in SERVICES[name].get("ports", []):
            assert port.startswith(f"{LOCALHOST}:")

    @pytest.mark.parametrize("name", SERVICES)
    def test_waits_for_what_can_be_waited_for(self, name: str) -> None:
        for needed, how in SERVICES[name].get("depends_on", {}).items():
            ready = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": ready}

    @pytest.mark.parametrize("name", SERVICES)
    def test_mounts_declared_volumes_and_files_that_exist(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            source = mount.partition(":")[0]
            assert (PROJECT / source).is_file() if "/" in source else source in COMPOSE["volumes"]

    def test_tasks_stage_their_files_in_a_volume(self) -> None:
        _, _, staging = AIRFLOW_ENVIRONMENT["LAION_STAGING_URI"].partition("file://")

        assert f"staging:{staging}" in SERVICES["airflow-scheduler"]["volumes"]


class TestTheSecrets:
    def test_have_no_defaults(self) -> None:
        secrets = [variable for variable in variables() if SECRET.search(variable["name"])]

        assert len({variable["name"] for variable in secrets}) == 7
        for variable in secrets:
            optional = variable["name"] == "AIRFLOW_CONN_LAION_ALERTS"
            assert variable["operator"] == ("-" if optional else "?")
            assert bool(variable["rest"]) != optional

    @pytest.mark.parametrize("name", SERVICES)
    def test_come_from_variables(self, name: str) -> None:
        for key, value in ENVIRONMENTS[name].items():
            if SECRET.search(key) and not key.endswith("PASSWORDS_FILE"):
                assert VARIABLE.search(value), key

    def test_are_made_by_make_env(self, tmp_path: Path) -> None:
        make_env(tmp_path / ".env")

        made = read_env(tmp_path / ".env")
        needed = {variable["name"] for variable in variables() if variable["operator"] == "?"}
        assert needed == {name for name, value in made.items() if value}

    def test_are_random_and_readable_by_their_owner_only(self, tmp_path: Path) -> None:
        files = [tmp_path / "one", tmp_path / "two"]
        for file in files:
            make_env(file)

        one, two = map(read_env, files)
        secrets = [value for value in (*one.values(), *two.values()) if value]
        assert len(set(secrets)) == len(secrets) == 12
        assert min(map(len, secrets)) >= 24
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert sorted(tmp_path.iterdir()) == files

    def test_are_never_overwritten(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        file.write_text("POSTGRES_PASSWORD=mine\n")

        output = make_env(file).stdout

        assert file.read_text() == "POSTGRES_PASSWORD=mine\n"
        assert "stays as it is" in output

    def test_need_no_quoting_in_urls_json_and_xml(self, tmp_path: Path) -> None:
        make_env(tmp_path / ".env")

        made = read_env(tmp_path / ".env")
        Fernet(made.pop("AIRFLOW_FERNET_KEY"))
        assert all(re.fullmatch(r"[0-9a-f]*", value) for value in made.values())


class TestTheEnvironment:
    def test_names_real_options_of_airflow(self) -> None:
        from airflow.configuration import retrieve_configuration_description

        sections = retrieve_configuration_description(include_providers=False)
        names = [key for key in ENVIRONMENTS["airflow-init"] if key.startswith("AIRFLOW__")]

        assert len(names) > 10
        for name in names:
            _, section, option = name.lower().split("__")
            assert option in sections[section]["options"], name

    def test_names_real_settings(self) -> None:
        settings = {f"LAION_{name.upper()}" for name in Settings.model_fields}
        names = {key for key in AIRFLOW_ENVIRONMENT if key.startswith("LAION_")}

        assert load_profile("sample").mirrors[0].url == "${LAION_SAMPLE_SOURCE}"
        assert names - {"LAION_SAMPLE_SOURCE"} <= settings

    def test_is_documented(self) -> None:
        optional = {key for key, value in AIRFLOW_ENVIRONMENT.items() if value is None}

        for name in {variable["name"] for variable in variables()} | optional:
            assert f"`{name}`" in DOCS, name

    def test_connects_to_the_user_and_database_that_clickhouse_makes(self) -> None:
        from airflow.sdk import Connection

        server = ENVIRONMENTS["clickhouse"]
        text = VARIABLE.sub(r"<\g<name>>", AIRFLOW_ENVIRONMENT["AIRFLOW_CONN_CLICKHOUSE_DEFAULT"])

        connection = Connection.from_json(text, conn_id="clickhouse_default")

        assert connection.conn_type == "clickhouse"
        assert (connection.host, connection.port) == ("clickhouse", 8123)
        assert connection.login == server["CLICKHOUSE_USER"]
        assert connection.schema == server["CLICKHOUSE_DB"]
        assert connection.password == "<CLICKHOUSE_PASSWORD>"
        assert VARIABLE.sub(r"<\g<name>>", server["CLICKHOUSE_PASSWORD"]) == connection.password

    def test_an_empty_alerts_connection_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.secrets.environment_variables import EnvironmentVariablesBackend

        monkeypatch.setenv("AIRFLOW_CONN_LAION_ALERTS", "")

        assert EnvironmentVariablesBackend().get_connection("laion_alerts") is None


class TestTheCommands:
    @pytest.mark.parametrize(
        "name", [name for name, s in SERVICES.items() if s.get("command", [""])[0] == "airflow"]
    )
    def test_exist_in_airflow(self, name: str) -> None:
        from airflow.cli.cli_parser import get_parser

        get_parser().parse_args(SERVICES[name]["command"][1:])

    def test_write_the_sample_where_the_web_server_reads_it(self) -> None:
        python, option, module, *arguments = SERVICES["sample-data"]["command"]
        options = sample_parser().parse_args(arguments)

        assert [python, option, module] == ["python", "-m", "laion.sample"]
        assert SERVICES["sample-data"]["volumes"] == [f"sample:{options.directory}"]
        assert "sample:/srv/sample:ro" in SERVICES["sample"]["volumes"]
        nginx = (PROJECT / "docker/sample/nginx.conf").read_text()
        assert "root /srv/sample;" in nginx
        assert "listen 8080;" in nginx

    def test_ask_for_parts_whose_health_airflow_reports(self) -> None:
        from airflow.api_fastapi.core_api.datamodels.monitor import HealthInfoResponse

        checks = [s["healthcheck"]["test"] for n, s in LONG_RUNNING.items() if "airflow" in n]

        assert all(check[:2] == ["CMD", "laion-health"] for check in checks)
        assert {check[3] for check in checks} == HealthInfoResponse.model_fields.keys()

    def test_ask_at_an_address_that_airflow_has(self) -> None:
        import airflow.api_fastapi.core_api as core_api

        api = Path(core_api.__file__).parent / "openapi" / "v2-rest-api-generated.yaml"

        assert "\n  /api/v2/monitor/health:\n" in api.read_text()

    @pytest.mark.parametrize(("part", "code"), [("scheduler", 0), ("triggerer", 1)])
    def test_a_health_check_succeeds_for_a_healthy_part_only(
        self, airflow_url: str, part: str, code: int
    ) -> None:
        health = AIRFLOW_DOCKER / "health.py"

        result = subprocess.run([sys.executable, health, airflow_url, part], capture_output=True)

        assert result.returncode == code

    # Importing Airflow's API imports a test client that Airflow does not use.
    @pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")
    def test_initialising_migrates_and_sets_the_password_of_the_admin(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

        airflow = tmp_path / "airflow"
        airflow.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
        airflow.chmod(0o755)
        passwords = tmp_path / "passwords.json"
        monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
        monkeypatch.setenv("AIRFLOW_ADMIN_PASSWORD", "geheim")
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

        subprocess.run(["bash", AIRFLOW_DOCKER / "init.sh"], check=True)

        assert (tmp_path / "called").read_text() == "db migrate\n"
        assert SimpleAuthManager.get_passwords() == {"admin": "geheim"}
        assert stat.S_IMODE(passwords.stat().st_mode) == 0o600


class TestTheImage:
    def test_is_named_after_the_airflow_it_has(self) -> None:
        version = pins(PROJECT / "requirements.lock")["apache-airflow"]
        images = {s["image"] for n, s in SERVICES.items() if n.startswith("airflow-")}

        assert images == {f"laion-airflow:{version}"}
        assert [name for name, service in SERVICES.items() if "build" in service] == [
            "airflow-init"
        ]

    def test_is_built_on_a_pinned_base(self) -> None:
        assert re.findall("^FROM (.*)$", DOCKERFILE, re.MULTILINE) == [
            "python:3.12.12-slim-bookworm"
        ]

    def test_is_run_by_the_user_it_makes(self) -> None:
        assert DOCKERFILE.rstrip().endswith("USER 50000:0")
        assert "useradd --uid 50000 --gid 0 " in DOCKERFILE

    def test_copies_files_that_exist_and_are_not_ignored(self) -> None:
        copies = re.findall(r"^COPY (?:--\S+ )*(.*) \S+$", DOCKERFILE, re.MULTILINE)
        sources = [source for copy in copies for source in copy.split()]
        sent = re.findall("^!(.*)$", (PROJECT / ".dockerignore").read_text(), re.MULTILINE)

        for source in sources:
            assert (PROJECT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in sent), source

    def test_never_gets_the_secrets(self) -> None:
        rules = [
            line
            for line in (PROJECT / ".dockerignore").read_text().splitlines()
            if not line.startswith("#")
        ]

        assert rules[0] == "*"
        assert "!.env" not in rules

    def test_adds_only_the_build_tool_to_the_lock(self) -> None:
        added = pins(AIRFLOW_DOCKER / "requirements.lock")

        assert added.keys() == {"setuptools"}
        assert not added.keys() & pins(PROJECT / "requirements.lock").keys()
        assert added["setuptools"] == pins(PROJECT / "requirements-dev.lock")["setuptools"]
        assert "--require-hashes" in DOCKERFILE

    def test_has_a_place_for_every_volume(self) -> None:
        made = re.search(r"mkdir ([a-z ]+) &&", DOCKERFILE)
        mounted = {
            mount.partition(":")[2]
            for service in SERVICES.values()
            if service["image"].startswith("laion-airflow:")
            for mount in service["volumes"]
        }

        assert made is not None
        assert mounted == {f"/opt/airflow/{name}" for name in made[1].split()}


def test_the_configuration_of_clickhouse_is_well_formed() -> None:
    root = ElementTree.parse(PROJECT / "docker/clickhouse/server.xml").getroot()

    assert root.tag == "clickhouse"


@pytest.fixture
def airflow_url() -> Iterator[str]:
    """Answers as Airflow does while its triggerer is not running."""
    body = json.dumps({"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}})

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/v2/monitor/health" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with HTTPServer((LOCALHOST, 0), Health) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{LOCALHOST}:{server.server_port}"
        server.shutdown()
        thread.join()
