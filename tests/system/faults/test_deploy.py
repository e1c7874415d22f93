"""The SQL functions under faults: a deployment that is cut off is done again, the old one goes."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from laion.sample.model import MODELS, ensure_sample_model
from tests.system.faults.world import World

POINTS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "before the functions are read": (b"SYSTEM RELOAD FUNCTION", {}),
    "when the functions are read": (b"SYSTEM RELOAD FUNCTION", {"in_answer": True}),
    "at the first call": (b"encode_text", {}),
}


def prepare(world: World) -> None:
    """Make the installation one that may deploy."""
    ensure_sample_model()
    server = world.server.path
    world.env |= {
        "LAION_MODELS_DIR": str(MODELS),
        "LAION_UDF_SCRIPTS_DIR": str(server / "user_scripts"),
        "LAION_UDF_FUNCTIONS_DIR": str(server / "user_defined_functions"),
        "LAION_UDF_PYTHON": sys.executable,
    }


@pytest.mark.slow_fault
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("fault", ["SIGKILL of the worker", "SIGKILL of ClickHouse"])
@pytest.mark.scenario(
    done="{fault} in deploy_udfs, {point}; an older version is in use",
    promised="tried again; the functions work, and only the new version is there",
)
def test_deploy(fragile: World, point: str, fault: str) -> None:
    world = fragile
    prepare(world)
    older = world.new_run("", dataset="sample", deploy_udfs=True).run_task("deploy_udfs")
    world.env["LAION_UDF_THREADS"] = "1"
    pattern, where = POINTS[point]
    action = world.kill_worker if fault.endswith("worker") else world.crash_server
    rule = world.during("deploy_udfs", pattern, action, **where)

    ended = world.new_run("", dataset="sample", deploy_udfs=True).run_task("deploy_udfs")

    assert rule.fired.is_set()
    assert (older.state, ended.state) == ("success", "success")
    assert world.direct.rows("SELECT length(encode_text('a cat'))") == [["384"]]
    scripts = (world.server.path / "user_scripts").iterdir()
    assert {path.name.split(".")[0] for path in scripts} == {f"laion_udf_{ended.value['version']}"}
    assert ended.value["version"] != older.value["version"]
    assert world.left_processes() == []
    world.tell("one version is there, and works")
