"""What is tried again, and when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from laion.errors import BadNpy, LaionError, SourceBusy, SourceUnreachable
from laion.orchestration.retries import (
    JITTER,
    LONGEST_TOLD_WAIT_S,
    MAX_DELAY_S,
    RULES,
    LaionRetryPolicy,
    Then,
    is_retryable,
    rule_for,
)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (SourceUnreachable("down"), True),
        (BadNpy("truncated"), False),
        (DatabaseError("no such table", code=60), False),
        (DatabaseError("memory", code=241), True),
        (OperationalError("no answer"), True),
        (AirflowException("a check failed"), False),
        (RuntimeError("unforeseen"), True),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, retryable: bool) -> None:
    assert is_retryable(error) is retryable


def all_errors(base: type[LaionError] = LaionError) -> list[type[LaionError]]:
    return [base, *(error for child in base.__subclasses__() for error in all_errors(child))]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_the_table_agrees_with_what_each_error_says_of_itself(error: type[LaionError]) -> None:
    assert (rule_for(error).then is not Then.FAIL) == error.retryable


def test_no_rule_hides_a_later_one() -> None:
    for number, rule in enumerate(RULES):
        assert rule_for(rule.error) is RULES[number]


def test_delays_double_up_to_a_limit_and_spread() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    decisions = [policy.evaluate(SourceUnreachable(), n, max_tries=9) for n in (1, 2, 3, 9)]

    assert {decision.action for decision in decisions} == {RetryAction.RETRY}
    for decision, seconds in zip(decisions, (5, 10, 20, MAX_DELAY_S), strict=True):
        assert timedelta(seconds=seconds) <= decision.retry_delay
        assert decision.retry_delay <= timedelta(seconds=seconds * (1 + JITTER))


def test_a_busy_source_is_given_the_time_that_it_asks_for() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    asked = policy.evaluate(SourceBusy("busy", wait_s=300), 1, max_tries=3).retry_delay

    assert timedelta(seconds=300) <= asked <= timedelta(seconds=300 * (1 + JITTER))


def test_a_source_that_asks_for_a_day_is_asked_again_after_a_quarter_of_an_hour() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    asked = policy.evaluate(SourceBusy("busy", wait_s=86_400), 1, max_tries=3).retry_delay

    assert asked <= timedelta(seconds=LONGEST_TOLD_WAIT_S * (1 + JITTER))


def test_the_default_delays_stay_under_five_minutes_in_all() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    waits = [policy.evaluate(SourceUnreachable(), n, max_tries=3).retry_delay for n in (1, 2, 3)]

    assert sum(waits, timedelta()) < timedelta(minutes=5)


def test_what_cannot_pass_fails_at_once() -> None:
    decision = LaionRetryPolicy(5).evaluate(BadNpy(), try_number=1, max_tries=3)

    assert decision.action is RetryAction.FAIL


def test_the_documentation_has_the_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()

    for rule in RULES:
        assert f"| {rule.when} | `{rule.error.__name__}` | {rule.before} | {rule.then} |" in text
