"""The form of `laion_ingest` refuses what a run could not use."""

from __future__ import annotations

import copy

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError

from laion.datasets import profile_names
from laion.orchestration.params import IngestRequest


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
