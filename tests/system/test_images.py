"""What the Docker images hold, installed without Docker, and the stack's services run on it.

Only run by `make images`: it installs Airflow anew, which takes minutes.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laion.sample.dataset import SHARD_ROWS
from tests.compose_file import PROJECT, pins
from tests.s3 import S3Server
from tests.system.compose_stack import ComposeStack, missing_programs
from tests.system.images import Image, build_airflow, build_clickhouse

RUN_TIMEOUT_S = 300

pytestmark = [
    pytest.mark.images,
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}"),
]


@contextmanager
def image_root() -> Iterator[Path]:
    """A directory that is gone afterwards, unlike pytest's own: an image is a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="laion-image-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def airflow_image() -> Iterator[Image]:
    with image_root() as root:
        yield build_airflow(root)


@pytest.fixture(scope="module")
def clickhouse_image() -> Iterator[Image]:
    with image_root() as root:
        yield build_clickhouse(root)


@pytest.fixture(scope="module")
def stack(
    airflow_image: Image,
    clickhouse_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: S3Server,
) -> Iterator[ComposeStack]:
    """The services, with the programs of the images; its `_start` runs `laion-init`."""
    state = tmp_path_factory.mktemp("compose")
    udf_python = clickhouse_image.root / "opt/laion/bin/python"
    with ComposeStack(state, s3_server, airflow_image.programs, udf_python) as stack:
        yield stack


def test_the_airflow_image_has_all_that_its_packages_need_but_the_engine(
    airflow_image: Image,
) -> None:
    python = airflow_image.programs / "python"
    check = subprocess.run(
        [python, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    found = subprocess.run(
        [
            python,
            "-c",
            "import laion, importlib.util as u; print(laion.__file__, u.find_spec('chdb'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    # Of some packages only data are read.
    known = pins(PROJECT / "requirements-no-deps.lock")
    lacking = [line for line in check.stdout.splitlines() if line.split()[0] not in known]
    assert lacking == [], check.stdout
    assert found[0].startswith(str(airflow_image.root))
    assert found[1] == "None"


def test_every_service_passes_its_health_check(stack: ComposeStack) -> None:
    stack.check_all_healthy()


def test_the_sample_is_loaded_and_found_by_words(stack: ComposeStack) -> None:
    api = stack.api("operator")
    run_id = api.trigger("laion_ingest", {"dataset": "sample", "shards": "0-1"})

    assert api.wait_for_run("laion_ingest", run_id, RUN_TIMEOUT_S) == "success"
    with stack.clickhouse.client(database="laion") as client:
        words = "q = encode_text('a sleepy ginger cat')"
        every = f"sample_near({words}, k = {sum(SHARD_ROWS)})"
        assert client.command(f"SELECT count() FROM {every}") == sum(SHARD_ROWS[:2])
        nearest = f"SELECT caption FROM sample_near({words}, k = 5)"
        captions = [row[0] for row in client.query(nearest).result_rows]
    assert "cat" in " ".join(captions)
