"""Which errors are tried again, and when: every error type knows whether that can help."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Context, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException

from laion.errors import LaionError

MAX_DELAY_S = 120.0


class LaionRetryPolicy(RetryPolicy):
    """Fail at once where trying again cannot help; else wait twice as long each time."""

    def __init__(self, first_delay_s: float) -> None:
        self.first_delay_s = first_delay_s

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        if not is_retryable(exception):
            return RetryDecision.fail(f"{type(exception).__name__} does not pass by itself")
        delay_s = min(self.first_delay_s * 2 ** (try_number - 1), MAX_DELAY_S)
        return RetryDecision.retry(
            timedelta(seconds=delay_s), f"{type(exception).__name__} may pass by itself"
        )


def is_retryable(exception: BaseException) -> bool:
    """Return whether trying again can help.

    Our errors know. Operators raise the driver's own, judged by ClickHouse's error code, and
    AirflowException for a check that failed. Anything else gets the benefit of the doubt.
    """
    if isinstance(exception, LaionError):
        return exception.retryable
    if isinstance(exception, AirflowException):
        return False
    # Imported here: the driver is too heavy for the parsing of DAGs.
    from laion.clickhouse.client import DRIVER_ERRORS, as_typed_error

    if isinstance(exception, DRIVER_ERRORS):
        return as_typed_error(exception, "run a statement").retryable
    return True
