"""The task `deploy_udfs`: Airflow's settings and connections turned into a deployment."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from laion.clickhouse.client import Client
from laion.clickhouse.schema import table_exists
from laion.datasets import load_profile
from laion.encoders.model import ModelDirectory
from laion.errors import BadModel, UdfCheckFailed, UdfsNotPossible
from laion.orchestration.lineage import FUNCTIONS, tell
from laion.orchestration.params import IngestRequest
from laion.orchestration.udf_hosts import find_targets, open_clients, open_hosts
from laion.preflight import Line, Verdict
from laion.settings import Settings, get_settings
from laion.udf.checks import Expectation, check_functions, complete_manifest
from laion.udf.deploy import deploy_version, missing_functions
from laion.udf.options import WorkerOptions
from laion.udf.version import UdfVersion, render_version
from laion.vectors import TEXT

log = logging.getLogger(__name__)


def deploy_udfs() -> dict[str, Any]:
    """Deploy `encode_text` and `encode_image` with the model that made the run's dataset.

    Skipped, saying why, where this installation cannot do it.
    """
    context = get_current_context()
    request = IngestRequest.from_params(context["params"])
    if not request.deploy_udfs:
        raise AirflowSkipException("the run was started with deploy_udfs off")
    settings = get_settings()
    try:
        model, server_model = _find_model(request.dataset, settings)
        targets = find_targets(settings)
    except UdfsNotPossible as error:
        raise AirflowSkipException(f"not possible here, because {error}") from error
    version = _render(model, server_model, settings)

    def check(client: Client) -> None:
        check_functions(client, _expect(client, model, version, request.table, request.dataset))

    with open_hosts(targets, settings) as hosts:
        owner = f"{context['task_instance'].dag_id} {context['run_id']}"
        changed = deploy_version(hosts, version, check, owner)
        names = [host.name for host in hosts]
    log.info(
        "%s: %s: version %s %s",
        ", ".join(names),
        " and ".join(version.functions),
        version.sha,
        "deployed" if changed else "was there already, and works",
    )
    result = {
        "version": version.sha,
        "functions": list(version.functions),
        "hosts": names,
        "changed": changed,
    }
    tell(FUNCTIONS, dataset=request.dataset, **result)
    return result


def foresee_deployment(request: IngestRequest) -> Line:
    """Say whether the last task of a run will find the model that it deploys."""
    settings = get_settings()
    if not request.deploy_udfs:
        return Line("functions", "", "not asked for")
    try:
        find_targets(settings)
        model, _ = _find_model(request.dataset, settings)
    except UdfsNotPossible as error:
        return Line("functions", "", "not possible here", note=f"deploy_udfs skips itself: {error}")
    except BadModel as error:
        note = f"{error} Or start the run with deploy_udfs off."
        return Line("functions", "a model", "none", Verdict.PROBLEM, note)
    return Line("functions", "a model", model.manifest.name)


def smoke_test(table: str, dataset: str) -> None:
    """Call the functions that are deployed on every host, without changing anything.

    Raises UdfsNotPossible where this installation deploys none, UdfCheckFailed when they are of
    another version than would be deployed now, or do not give what they should.
    """
    settings = get_settings()
    model, server_model = _find_model(dataset, settings)
    targets = find_targets(settings)
    version = _render(model, server_model, settings)
    with open_clients(targets, settings) as clients:
        for host, client in clients.items():
            if missing := missing_functions(client, version):
                raise UdfCheckFailed(
                    f"{host}: the functions are not version {version.sha}: {'; '.join(missing)}"
                )
            check_functions(client, _expect(client, model, version, table, dataset))


def _render(model: ModelDirectory, server_model: str, settings: Settings) -> UdfVersion:
    return render_version(
        model.manifest,
        WorkerOptions(server_model, settings.udf_image_root, settings.udf_threads),
        python=settings.udf_python,
        pool_size=settings.udf_pool_size,
    )


def _expect(
    client: Client, model: ModelDirectory, version: UdfVersion, table: str, dataset: str
) -> Expectation:
    has_texts = TEXT in load_profile(dataset).vectors
    loaded = has_texts and table_exists(client, table)
    return Expectation(
        manifest=complete_manifest(model)
        if "encode_image" in version.functions
        else model.manifest,
        functions=version.functions,
        pool_size=get_settings().udf_pool_size,
        table=table if loaded else None,
    )


def _find_model(dataset: str, settings: Settings) -> tuple[ModelDirectory, str]:
    """Return the dataset's model as we see it, and its path on the ClickHouse server."""
    profile = load_profile(dataset)
    name = profile.model_of(TEXT) or profile.model
    if name is None:
        raise UdfsNotPossible(
            f"the profile of dataset {dataset!r} does not say which model made its vectors"
        )
    if not settings.models_dir:
        raise UdfsNotPossible(
            f"LAION_MODELS_DIR is not set; fetch the model {name!r} first (docs/udf.md)"
        )
    server_dir = Path(settings.udf_models_dir or settings.models_dir)
    return ModelDirectory.open(Path(settings.models_dir) / name), str(server_dir / name)
