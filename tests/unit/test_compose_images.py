"""The images of the Docker Compose stack and what runs in them, without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

import pytest

from laion.sample.__main__ import _parser as sample_parser
from tests.compose_file import (
    AIRFLOW_DOCKER,
    DOCKERFILE,
    LOCALHOST,
    LONG_RUNNING,
    PROJECT,
    SERVICES,
    pins,
)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="laion-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


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
        assert {check[3] for check in checks} == {"worker", *HealthInfoResponse.model_fields}

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
    def test_initialising_can_be_repeated_and_says_what_it_cannot_write(
        self, open_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

        programs, passwords = open_path / "bin", open_path / "auth" / "passwords.json"
        programs.mkdir()
        for name, script in {
            "airflow": f'echo "$@" >> {open_path}/called',
            # The sample's model takes a minute to make; the passwords are made by the real Python.
            "python3": f"""
                [ "$1" = -c ] && exec {sys.executable} "$@"
                echo "$@" >> {open_path}/called
                mkdir -p {open_path}/built/sample && touch {open_path}/built/sample/manifest.json
                echo {open_path}/built/sample""",
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        for name, value in {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": passwords,
            "AIRFLOW_HOME": open_path,
            "LAION_MODELS_DIR": open_path / "models",
            "LAION_UDF_SCRIPTS_DIR": open_path / "udf" / "scripts",
            "LAION_UDF_FUNCTIONS_DIR": open_path / "udf" / "functions",
            "AIRFLOW_ADMIN_PASSWORD": "a",
            "AIRFLOW_OPERATOR_PASSWORD": "o",
            "AIRFLOW_VIEWER_PASSWORD": "v",
            "LAION_STAGING_URI": (open_path / "staging").as_uri(),
            "CLICKHOUSE_ADMIN_URL": "http://admin:secret@clickhouse:8123",
        }.items():
            monkeypatch.setenv(name, str(value))
        # Its text, because another user may not be able to read the checkout.
        init = ["bash", "-c", (AIRFLOW_DOCKER / "init.sh").read_text()]

        for _ in range(2):
            subprocess.run(init, check=True)

        once = ["db migrate", "-m laion.sample model"]
        once += ["-m laion.clickhouse.users --database laion --apply"]
        assert (open_path / "called").read_text().splitlines() == 2 * once
        assert SimpleAuthManager.get_passwords() == {"admin": "a", "operator": "o", "viewer": "v"}
        assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
        assert (open_path / "models" / "sample" / "manifest.json").exists()

        if os.geteuid() == 0:
            init = ["setpriv", "--reuid=65534", "--clear-groups", *init]
            subprocess.run(["chown", "-R", "65534", open_path], check=True)
        for volume in ("staging", "models"):
            os.chown(open_path / volume, os.geteuid(), -1)
            (open_path / volume).chmod(0o555)
            refused = subprocess.run(init, capture_output=True, text=True, check=False)

            assert refused.returncode == 1
            assert f"{open_path / volume} belongs to user {os.geteuid()}" in refused.stderr


@pytest.mark.parametrize(
    ("linter", "files"),
    [
        ("hadolint", sorted(PROJECT.glob("docker/*/Dockerfile"))),
        ("shellcheck", [*PROJECT.glob("scripts/*.sh"), *PROJECT.glob("docker/*/*.sh")]),
    ],
)
def test_linters_find_nothing(linter: str, files: list[Path]) -> None:
    program = Path(sys.executable).parent / linter
    if not program.exists():
        pytest.skip(f"{linter} is not installed: run `make setup` again")

    found = subprocess.run([program, *files], capture_output=True, text=True, check=False)

    assert len(files) >= 2
    assert found.returncode == 0, found.stdout + found.stderr


class TestTheImage:
    def test_is_named_after_the_airflow_it_has(self) -> None:
        version = pins(PROJECT / "requirements.lock")["apache-airflow"]
        images = {s["image"] for n, s in SERVICES.items() if n.startswith("airflow-")}

        assert images == {f"laion-airflow:{version}"}
        built = [name for name, service in SERVICES.items() if "build" in service]
        assert built == ["clickhouse", "airflow-init"]

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
        made = re.search(r"mkdir -p ([a-z /]+) \\\n", DOCKERFILE)
        mounted = {
            mount.split(":")[1]
            for service in SERVICES.values()
            if service["image"].startswith("laion-airflow:")
            for mount in service["volumes"]
        }

        assert made is not None
        assert mounted == {f"/opt/airflow/{name.split('/')[0]}" for name in made[1].split()}


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
