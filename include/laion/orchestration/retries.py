"""Which errors are tried again, and when: one table, read by the retry policy of every task."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from airflow.sdk import Context, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException

from laion import errors
from laion.errors import LaionError

MAX_DELAY_S = 120.0
LONGEST_TOLD_WAIT_S = 900.0
"""A source that asks for more patience is asked again after this."""
JITTER = 0.5
"""Delays are stretched by up to this share, so that tasks that failed together come apart."""


class Then(StrEnum):
    """What Airflow does with a task that ended with an error."""

    FAIL = "fails at once"
    BACK_OFF = "again, after twice the wait each time"
    AS_TOLD = "again, after the wait that the source asks for (up to 15 minutes)"


@dataclass(frozen=True)
class Rule:
    """What becomes of an error: what the task itself has done about it `before`, and `then`."""

    error: type[LaionError]
    when: str
    before: str
    then: Then


RULES = (
    Rule(
        errors.SourceBusy,
        "HTTP 408, 425, 429, 503",
        "waits as told, up to 30 s; then the next mirror",
        Then.AS_TOLD,
    ),
    Rule(
        errors.SourceUnreachable,
        "time-out, reset, no such host, other HTTP 5xx",
        "goes on from the last byte until three tries bring nothing new; then the next mirror",
        Then.BACK_OFF,
    ),
    Rule(
        errors.SourceIncomplete,
        "fewer bytes than announced",
        "goes on from the last byte until three tries bring nothing new; then the next mirror",
        Then.BACK_OFF,
    ),
    Rule(
        errors.SourceChanged,
        "HTTP 416; another size, ETag or date than the part has",
        "begins the file again, once; then the next mirror",
        Then.BACK_OFF,
    ),
    Rule(
        errors.ChecksumMismatch,
        "another sha256 than is known",
        "begins the file again, once; then the next mirror",
        Then.FAIL,
    ),
    Rule(errors.SourceMissing, "HTTP 404, 410; no such file", "the next mirror", Then.FAIL),
    Rule(errors.SourceRefused, "HTTP 401, 403, 407", "the next mirror", Then.FAIL),
    Rule(
        errors.SourceUnusable,
        "a web page, an empty file, a compressed body, a redirect loop, other HTTP 4xx",
        "the next mirror",
        Then.FAIL,
    ),
    Rule(errors.DiskFull, "no room in the staging area", "deletes the unfinished file", Then.FAIL),
    Rule(errors.StorageUnreachable, "S3 of the staging area does not answer", "", Then.BACK_OFF),
    Rule(errors.FormatError, "row counts, vectors or formats that are wrong", "", Then.FAIL),
    Rule(errors.ClickHouseUnreachable, "ClickHouse does not answer", "", Then.BACK_OFF),
    Rule(errors.ClickHouseBusy, "ClickHouse lacks memory or time", "", Then.BACK_OFF),
    Rule(errors.ValidationFailed, "not all rows arrived in ClickHouse", "", Then.BACK_OFF),
    Rule(errors.UdfHostUnreachable, "a host does not answer over SSH", "", Then.BACK_OFF),
    Rule(errors.DeployInProgress, "functions are being deployed by another", "", Then.BACK_OFF),
    Rule(LaionError, "every other error of ours", "", Then.FAIL),
)
"""The first rule whose error an exception is an instance of decides."""


class LaionRetryPolicy(RetryPolicy):
    """Decides by `RULES`; waits `first_delay_s`, then twice as long each time."""

    def __init__(self, first_delay_s: float) -> None:
        self.first_delay_s = first_delay_s

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        name = type(exception).__name__
        if not is_retryable(exception):
            return RetryDecision.fail(f"{name} does not pass by itself")
        told_s = getattr(exception, "wait_s", None)
        if told_s is not None:
            delay_s = min(told_s, LONGEST_TOLD_WAIT_S)
        else:
            delay_s = min(self.first_delay_s * 2 ** (try_number - 1), MAX_DELAY_S)
        delay_s *= random.uniform(1, 1 + JITTER)
        return RetryDecision.retry(timedelta(seconds=delay_s), f"{name} may pass by itself")


def rule_for(error: type[LaionError]) -> Rule:
    """Return the rule that decides about an error of ours."""
    return next(rule for rule in RULES if issubclass(error, rule.error))


def is_retryable(exception: BaseException) -> bool:
    """Return whether trying again can help.

    `RULES` tell of our errors. Operators raise the driver's own, judged by ClickHouse's error
    code, and AirflowException for a check that failed. Anything else gets the benefit of the
    doubt.
    """
    if isinstance(exception, LaionError):
        return rule_for(type(exception)).then is not Then.FAIL
    if isinstance(exception, AirflowException):
        return False
    # Imported here: the driver is too heavy for the parsing of DAGs.
    from laion.clickhouse.client import DRIVER_ERRORS, as_typed_error

    if isinstance(exception, DRIVER_ERRORS):
        return rule_for(type(as_typed_error(exception, "run a statement"))).then is not Then.FAIL
    return True
