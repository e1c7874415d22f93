"""What is tried again, and when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from laion.errors import BadNpy, SourceUnreachable
from laion.orchestration.retries import MAX_DELAY_S, LaionRetryPolicy, is_retryable


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


def test_delays_double_up_to_a_limit() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    decisions = [policy.evaluate(SourceUnreachable(), n, max_tries=9) for n in (1, 2, 3, 9)]

    assert {decision.action for decision in decisions} == {RetryAction.RETRY}
    delays = [decision.retry_delay for decision in decisions]
    assert delays == [timedelta(seconds=s) for s in (5, 10, 20, MAX_DELAY_S)]


def test_the_default_delays_stay_under_five_minutes_in_all() -> None:
    policy = LaionRetryPolicy(first_delay_s=5)

    waits = [policy.evaluate(SourceUnreachable(), n, max_tries=3).retry_delay for n in (1, 2, 3)]

    assert sum(waits, timedelta()) < timedelta(minutes=5)


def test_what_cannot_pass_fails_at_once() -> None:
    decision = LaionRetryPolicy(5).evaluate(BadNpy(), try_number=1, max_tries=3)

    assert decision.action is RetryAction.FAIL
