"""What can be known of the Docker Compose stack and its secrets without a Docker engine."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from cryptography.fernet import Fernet

from laion.clickhouse.users import render_user
from laion.datasets import load_profile
from laion.settings import Settings
from tests.compose_file import (
    AIRFLOW_ENVIRONMENT,
    COMPOSE,
    DOCS,
    ENVIRONMENTS,
    LOCAL,
    LOCALHOST,
    LONG_RUNNING,
    NO_SECRETS,
    ONE_SHOT,
    PROJECT,
    SECRET,
    SERVICES,
    VARIABLE,
    variables,
)


def make_env(file: Path) -> subprocess.CompletedProcess[str]:
    script = PROJECT / "scripts" / "env.sh"
    return subprocess.run(["bash", script, file], check=True, capture_output=True, text=True)


def check_env(file: Path, option: str = "--check") -> subprocess.CompletedProcess[str]:
    script = PROJECT / "scripts" / "env.sh"
    return subprocess.run(
        ["bash", script, option, file], check=False, capture_output=True, text=True
    )


def read_env(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


class TestTheFile:
    @pytest.mark.parametrize("file", [COMPOSE, LOCAL])
    def test_follows_the_compose_specification(self, file: dict[str, Any]) -> None:
        from check_jsonschema.builtin_schemas import get_builtin_schema

        schema = get_builtin_schema("vendor.compose-spec")

        jsonschema.validate(file, schema)

    def test_has_the_parts_of_airflow_its_databases_and_the_sample(self) -> None:
        assert LONG_RUNNING.keys() == {
            "postgres",
            "redis",
            "clickhouse",
            "s3",
            "sample",
            "airflow-apiserver",
            "airflow-scheduler",
            "airflow-worker",
            "airflow-dag-processor",
            "airflow-triggerer",
        }
        assert {"airflow-init", "sample-data"} == ONE_SHOT

    @pytest.mark.parametrize("name", SERVICES)
    def test_pins_every_image(self, name: str) -> None:
        image, _, tag = SERVICES[name]["image"].rpartition(":")

        assert image
        assert re.match(r"v?\d+\.\d+", tag)

    @pytest.mark.parametrize("name", LONG_RUNNING)
    def test_every_long_running_service_has_a_health_check_and_time_to_stop(
        self, name: str
    ) -> None:
        assert SERVICES[name]["healthcheck"].keys() >= {"test", "interval", "timeout", "retries"}
        assert "stop_grace_period" in SERVICES[name]

    @pytest.mark.parametrize("name", SERVICES)
    def test_everything_has_its_limits(self, name: str) -> None:
        limits = SERVICES[name]["deploy"]["resources"]["limits"]

        assert limits.keys() == {"memory", "pids"}

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
            assert how["condition"] == ready

    @pytest.mark.parametrize("name", SERVICES)
    def test_mounts_declared_volumes_and_files_that_exist(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            source = mount.partition(":")[0]
            assert (PROJECT / source).is_file() if "/" in source else source in COMPOSE["volumes"]

    @pytest.mark.parametrize("name", ["airflow-scheduler", "airflow-worker"])
    def test_tasks_find_what_they_read_and_write_in_volumes(self, name: str) -> None:
        mounted = [mount.split(":")[1] for mount in SERVICES[name]["volumes"]]

        for setting in ("STAGING_URI", "MODELS_DIR", "UDF_SCRIPTS_DIR", "UDF_FUNCTIONS_DIR"):
            value = VARIABLE.sub(r"\g<rest>", ENVIRONMENTS[name][f"LAION_{setting}"])
            path = value.removeprefix("file://")
            assert any(path.startswith(place) for place in mounted), setting

    def test_clickhouse_finds_what_tasks_have_written(self) -> None:
        mounts = dict(mount.split(":")[:2] for mount in SERVICES["clickhouse"]["volumes"])
        airflow = dict(mount.split(":")[:2] for mount in SERVICES["airflow-worker"]["volumes"])
        server = ElementTree.parse(PROJECT / "docker/clickhouse/server.xml").getroot()
        dockerfile = (PROJECT / "docker/clickhouse/Dockerfile").read_text()

        assert AIRFLOW_ENVIRONMENT["LAION_UDF_MODELS_DIR"] == mounts["models"]
        assert AIRFLOW_ENVIRONMENT["LAION_UDF_IMAGE_ROOT"] == mounts["pictures"]
        for element, setting in {
            "user_scripts_path": "LAION_UDF_SCRIPTS_DIR",
            "user_defined_executable_functions_config": "LAION_UDF_FUNCTIONS_DIR",
        }.items():
            below = AIRFLOW_ENVIRONMENT[setting].removeprefix(airflow["udf"])
            assert str(server.findtext(element)).startswith(f"{mounts['udf']}{below}/")
            assert f"{mounts['udf']}{below}" in dockerfile
        assert AIRFLOW_ENVIRONMENT["LAION_UDF_PYTHON"].removesuffix("/bin/python") in dockerfile

    def test_on_a_small_machine_the_scheduler_runs_the_tasks(self) -> None:
        for name, service in LOCAL["services"].items():
            if name in ("redis", "airflow-worker"):
                assert service == {"profiles": ["celery"]}
            else:
                assert service == {"environment": {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}}
        assert LOCAL["services"].keys() == {"redis"} | {n for n in SERVICES if "airflow-" in n}
        for name in LOCAL["services"].keys() - {"airflow-worker"}:
            how = SERVICES[name].get("depends_on", {}).get("redis", {"required": False})
            assert how["required"] is False, name


class TestTheSecrets:
    def test_have_no_defaults(self) -> None:
        secrets = [variable for variable in variables() if SECRET.search(variable["name"])]

        assert len({variable["name"] for variable in secrets}) == 15
        for variable in secrets:
            optional = variable["name"] in ("AIRFLOW_CONN_LAION_ALERTS", "AIRFLOW_CONN_LAION_S3")
            assert variable["operator"] == ("-" if optional else "?")
            assert bool(variable["rest"]) != optional

    @pytest.mark.parametrize("name", SERVICES)
    def test_come_from_variables(self, name: str) -> None:
        for key, value in ENVIRONMENTS[name].items():
            if SECRET.search(key) and not key.endswith(NO_SECRETS):
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
        assert len(set(secrets)) == len(secrets) == 26
        assert min(map(len, secrets)) >= 24
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert sorted(tmp_path.iterdir()) == files

    def test_are_checked_line_by_line(self, tmp_path: Path) -> None:
        file = tmp_path / ".env"
        assert "There is no" in check_env(file).stderr
        make_env(file)
        good = file.read_text()
        assert check_env(file).returncode == 0

        for wrong, right, says in (
            ("", "REDIS_PASSWORD=", f"{file} lacks REDIS_PASSWORD. Add it: REDIS_PASSWORD="),
            ("REDIS_PASSWORD=a b&c", "REDIS_PASSWORD=", "characters that would need quoting"),
            ("AIRFLOW_FERNET_KEY=abc", "AIRFLOW_FERNET_KEY=", "is no Fernet key"),
            ("export all", "AIRFLOW_CONN_LAION_ALERTS=", "is no NAME=value"),
            ("COMPOSE_PROFILES=s3", "#COMPOSE_PROFILES=s3", "AIRFLOW_CONN_LAION_S3 does not say"),
        ):
            file.write_text(re.sub(f"^{right}.*$", wrong, good, flags=re.MULTILINE))
            checked = check_env(file)
            assert (checked.returncode, checked.stdout) == (1, "")
            assert says in checked.stderr

    def test_are_beside_ports_that_must_be_free(self, tmp_path: Path) -> None:
        with HTTPServer((LOCALHOST, 0), BaseHTTPRequestHandler) as taken:
            (tmp_path / ".env").write_text(f"AIRFLOW_PORT={taken.server_port}\nCLICKHOUSE_PORT=0\n")
            checked = check_env(tmp_path / ".env", "--check-ports")

        assert checked.returncode == 1
        assert f"Port {taken.server_port} of 127.0.0.1 is taken" in checked.stderr
        assert "CLICKHOUSE_PORT=0" in checked.stderr

    def test_are_no_use_without_docker_and_the_start_says_so(self, tmp_path: Path) -> None:
        start = ["bash", str(PROJECT / "scripts" / "stack.sh")]
        env = {**os.environ, "PATH": str(tmp_path)}
        Path(tmp_path / "bash").symlink_to("/bin/bash")

        started = subprocess.run(start, env=env, capture_output=True, text=True, check=False)

        assert started.returncode == 1
        assert "docker is not installed" in started.stderr

    def test_are_no_use_with_an_old_docker_and_the_start_says_so(self, tmp_path: Path) -> None:
        # It stands for a Docker, which is not to be had here.
        docker = tmp_path / "docker"
        docker.write_text("#!/bin/sh\necho 2.20.1\n")
        docker.chmod(0o755)
        start = ["bash", str(PROJECT / "scripts" / "stack.sh")]
        env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

        started = subprocess.run(start, env=env, capture_output=True, text=True, check=False)

        assert started.returncode == 1
        assert "Docker Compose is 2.20.1; 2.24 or newer is needed" in started.stderr

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

    def test_come_with_a_connection_to_the_stacks_own_s3(self, tmp_path: Path) -> None:
        from airflow.sdk import Connection

        make_env(tmp_path / ".env")
        text = (tmp_path / ".env").read_text()
        made = read_env(tmp_path / ".env")
        (line,) = re.findall("^#AIRFLOW_CONN_LAION_S3='(.*)'$", text, re.MULTILINE)

        connection = Connection.from_json(line, conn_id="laion_s3")

        server = ENVIRONMENTS["s3"]
        assert connection.login == server["ROOT_ACCESS_KEY"]
        assert connection.password == made["S3_PASSWORD"]
        assert connection.extra_dejson["endpoint_url"] == f"http://s3{server['VGW_PORT']}"
        (bucket,) = re.findall("^#LAION_STAGING_URI=s3://(.*)/.*$", text, re.MULTILINE)
        assert SERVICES["s3"]["volumes"] == [f"s3:{SERVICES['s3']['command'][1]}/{bucket}"]


class TestTheEnvironment:
    def test_names_real_options_of_airflow(self) -> None:
        from airflow.configuration import retrieve_configuration_description

        sections = retrieve_configuration_description(include_providers=True)
        names = [key for key in ENVIRONMENTS["airflow-init"] if key.startswith("AIRFLOW__")]

        assert len(names) > 10
        for name in names:
            _, section, option = name.lower().split("__")
            if section == "celery_broker_transport_options":
                continue  # Passed on to Redis as they are.
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

    @pytest.mark.parametrize(
        ("name", "role"),
        [("DEFAULT", "loader"), ("SEARCHER", "searcher"), ("DEPLOYER", "deployer")],
    )
    def test_connects_as_the_users_that_are_made(self, name: str, role: str) -> None:
        from airflow.sdk import Connection

        variable = f"AIRFLOW_CONN_CLICKHOUSE_{name}"
        text = VARIABLE.sub(r"<\g<name>>", AIRFLOW_ENVIRONMENT[variable])

        connection = Connection.from_json(text, conn_id="c")

        assert connection.conn_type == "clickhouse"
        assert (connection.host, connection.port) == ("clickhouse", 8123)
        assert connection.schema == ENVIRONMENTS["clickhouse"]["CLICKHOUSE_DB"]
        assert connection.login == f"laion_{role}"
        password = f"LAION_{role.upper()}_PASSWORD"
        assert connection.password == f"<{password}>"
        assert ENVIRONMENTS["airflow-init"][password].startswith(f"${{{password}:?")
        assert f"CREATE USER OR REPLACE laion_{role}\n" in render_user(role, "laion", "secret")

    def test_names_connections_that_it_makes(self) -> None:
        for setting in ("LAION_PAGES_CONN_ID", "LAION_UDF_CONN_ID"):
            assert f"AIRFLOW_CONN_{AIRFLOW_ENVIRONMENT[setting].upper()}" in AIRFLOW_ENVIRONMENT

    def test_an_empty_alerts_connection_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.secrets.environment_variables import EnvironmentVariablesBackend

        monkeypatch.setenv("AIRFLOW_CONN_LAION_ALERTS", "")

        assert EnvironmentVariablesBackend().get_connection("laion_alerts") is None
