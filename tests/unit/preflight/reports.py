"""What is read from a report."""

from __future__ import annotations

from laion.download import DownloadOptions
from laion.preflight import Line, Report

OPTIONS = DownloadOptions(connections=4, first_wait_s=0)


def verdicts(report: Report) -> dict[str, str]:
    return {line.check: line.verdict for line in report.lines}


def line(report: Report, check: str) -> Line:
    return next(line for line in report.lines if line.check == check)
