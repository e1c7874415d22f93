"""The form of `laion_ingest` refuses what a run could not use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import ParamValidationError
from airflow.sdk.execution_time.context import set_current_context

from laion.datasets import profile_names
from laion.errors import UnknownParam
from laion.orchestration import backfill, monitor, planning
from laion.orchestration.params import (
    IngestRequest,
    backfill_params,
    check_conf,
    ingest_params,
    monitor_params,
)


def check(dag: DAG, name: str, value: object) -> object:
    return copy.deepcopy(dag.params.get_param(name)).resolve(value)


@pytest.mark.parametrize("shards", ["", "0", "0-9,12", "1-2, 5", "all", "missing", "failed"])
def test_a_right_shards_expression_is_taken(laion_ingest: DAG, shards: str) -> None:
    assert check(laion_ingest, "shards", shards) == shards


@pytest.mark.parametrize("shards", ["zero", "1,,2", "1-", "-1", "0..9", "all,1", "1;2"])
def test_a_malformed_shards_expression_is_refused_with_an_example(
    laion_ingest: DAG, shards: str
) -> None:
    with pytest.raises(ParamValidationError, match="0-9,12"):
        check(laion_ingest, "shards", shards)


def test_an_unknown_dataset_is_refused_with_the_known_ones(laion_ingest: DAG) -> None:
    with pytest.raises(ParamValidationError, match="laion400m"):
        check(laion_ingest, "dataset", "laion")


@pytest.mark.parametrize("table", ["drop table", "a.b", "1st", "a`b", "x" * 71])
def test_a_table_name_that_needs_quoting_is_refused(laion_ingest: DAG, table: str) -> None:
    with pytest.raises(ParamValidationError):
        check(laion_ingest, "table", table)


@pytest.mark.parametrize(
    "source", ["", "http://a/b", "file:///data", "s3://bucket/p", "https://a, file:///b"]
)
def test_a_source_may_be_several_urls(laion_ingest: DAG, source: str) -> None:
    assert check(laion_ingest, "source", source) == source


@pytest.mark.parametrize("source", ["/data", "ftp://a/b", "http://a b", "mirror"])
def test_a_source_that_is_no_url_is_refused(laion_ingest: DAG, source: str) -> None:
    with pytest.raises(ParamValidationError):
        check(laion_ingest, "source", source)


@pytest.mark.parametrize("name", ["shards", "source", "table"])
def test_a_field_that_may_be_empty_may_be_null_as_the_form_sends_it(
    laion_ingest: DAG, name: str
) -> None:
    assert check(laion_ingest, name, None) is None
    assert check(laion_ingest, name, "") == ""


def test_the_form_offers_every_profile(laion_ingest: DAG) -> None:
    assert laion_ingest.params.get_param("dataset").schema["enum"] == profile_names()


def test_the_defaults_make_a_request_for_the_whole_sample(laion_ingest: DAG) -> None:
    request = IngestRequest.from_params(laion_ingest.params.dump())

    assert (request.dataset, request.shards, request.table) == ("sample", "all", "sample")
    assert (request.index_quantization, request.recall_target) == ("auto", 0.95)


def test_inverted_lists_may_be_asked_for(laion_ingest: DAG) -> None:
    params = {**laion_ingest.params.dump(), "index_kind": "ivf"}

    asked = IngestRequest.from_params({**params, "index_lists": 262_144}).index_options(5)
    default = IngestRequest.from_params(params).index_options(5)

    assert asked is not None
    assert default is not None
    assert (asked.parameters, default.parameters) == ({"lists": 262_144}, {})


class TestConf:
    @pytest.mark.parametrize("conf", [None, {}, {"shards": "0", "table": None}])
    def test_known_params_are_taken(self, conf: dict[str, object] | None) -> None:
        check_conf(conf, ingest_params())

    @pytest.mark.parametrize(
        ("params", "key", "meant"),
        [
            (ingest_params(), "shard", "shards"),
            (ingest_params(), "Shards", "shards"),
            (ingest_params(), "build_idnex", "build_index"),
            (backfill_params(), "dryrun", "dry_run"),
            (monitor_params(), "tables", "table"),
        ],
    )
    def test_a_misspelt_key_is_refused_with_the_nearest_right_one(
        self, params: dict[str, object], key: str, meant: str
    ) -> None:
        with pytest.raises(UnknownParam, match=f"'{key}' \\(did you mean '{meant}'\\?\\)"):
            check_conf({key: "0"}, params)

    def test_a_key_that_is_like_no_other_is_refused_with_all_there_are(self) -> None:
        with pytest.raises(
            UnknownParam, match=r"exist: 'colour'\..*Its params are dataset, shards,"
        ):
            check_conf({"colour": "red", "shards": "0"}, ingest_params())

    @pytest.mark.parametrize(
        "first_task", [planning.plan, backfill.find_shards, monitor.list_tables]
    )
    def test_the_first_task_of_each_dag_refuses_it_before_anything_else(
        self, first_task: Callable[[], object]
    ) -> None:
        context = {"dag_run": SimpleNamespace(conf={"colour": "red"}), "params": {}}

        with set_current_context(cast(Context, context)), pytest.raises(UnknownParam):
            first_task()
