"""Where the functions cannot be deployed, and what is said then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from laion.errors import BadModel, UdfsNotPossible
from laion.orchestration.params import IngestRequest, ingest_params
from laion.orchestration.udf_hosts import find_targets
from laion.orchestration.udfs import _find_model, foresee_deployment
from laion.settings import Settings, get_settings


def test_a_dataset_of_an_unknown_model_has_no_functions() -> None:
    with pytest.raises(UdfsNotPossible, match="does not say which model made its vectors"):
        _find_model("clip_retrieval", Settings(models_dir="/models"))


def test_the_functions_are_those_of_the_model_of_the_texts(own_profiles: Path) -> None:
    (own_profiles / "own.toml").write_text(
        """
        title = "own"
        [vector.text_embedding]
        model = "of-texts"
        [[layouts]]
        image_embedding = "i_{shard}.npy"
        text_embedding = "t_{shard}.npy"
        metadata = "m_{shard}.parquet"
        """
    )

    with pytest.raises(BadModel, match="of-texts"):
        _find_model("own", Settings(models_dir=str(own_profiles)))


def test_without_a_directory_of_models_there_are_no_functions() -> None:
    with pytest.raises(UdfsNotPossible, match=r"fetch the model 'clip-vit-b-32' first"):
        _find_model("laion400m", Settings())


def test_a_model_that_should_be_there_and_is_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="clip-vit-b-32"):
        _find_model("laion400m", Settings(models_dir=str(tmp_path)))


@pytest.mark.parametrize("known", [{}, {"udf_scripts_dir": "/a"}, {"udf_functions_dir": "/b"}])
def test_both_directories_of_the_server_must_be_known(known: dict[str, str]) -> None:
    with pytest.raises(UdfsNotPossible, match="Search encodes texts itself instead"):
        find_targets(Settings(**known))


def test_the_server_may_see_the_models_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    manifest = (
        '{"name": "sample", "dimension": 1, "max_tokens": 1, "files": {}, "source": "", '
        '"self_test": {"text": "", "vector": []}, "format": 1}'
    )
    (tmp_path / "sample" / "manifest.json").write_text(manifest)

    model, server_path = _find_model(
        "sample", Settings(models_dir=str(tmp_path), udf_models_dir="/srv/models")
    )

    assert (model.path, server_path) == (tmp_path / "sample", "/srv/models/sample")


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that may deploy, with an empty directory of models."""
    for name in ("MODELS_DIR", "UDF_SCRIPTS_DIR", "UDF_FUNCTIONS_DIR"):
        monkeypatch.setenv(f"LAION_{name}", str(tmp_path))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_a_model_that_is_missing_at_the_end_is_told_at_the_start(installation: None) -> None:
    params = {name: param.value for name, param in ingest_params().items()}
    asked = IngestRequest.from_params({**params, "dataset": "laion400m"})

    line = foresee_deployment(asked)

    assert line.verdict == "problem"
    assert "`python -m laion.encoders fetch`. Or start the run with deploy_udfs off." in line.note
    assert foresee_deployment(replace(asked, deploy_udfs=False)).verdict == "ok"
    assert foresee_deployment(replace(asked, dataset="clip_retrieval")).verdict == "ok"
