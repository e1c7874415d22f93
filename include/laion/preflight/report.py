"""What was asked before a run, and the answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from laion.errors import PreflightFailed, SourceUnreachable
from laion.survey import Survey


class Verdict(StrEnum):
    """What an answer means for the run; a problem keeps it from beginning."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Line:
    """One answer: what was asked, what the run needs, what there is; `note` says what to do."""

    check: str
    needed: str
    found: str
    verdict: Verdict = Verdict.OK
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Every answer, in the order in which it was asked."""

    lines: tuple[Line, ...]
    survey: Survey

    @property
    def problems(self) -> list[Line]:
        """What makes the whole run pointless."""
        return [line for line in self.lines if line.verdict is Verdict.PROBLEM]

    def to_json(self) -> list[dict[str, str]]:
        return [asdict(line) for line in self.lines]

    def as_table(self) -> str:
        """Return the answers as a table for a log, notes below their line."""
        rows = [("check", "needed", "found", ""), *((*_cells(line),) for line in self.lines)]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        text = []
        for row, line in zip(rows, (None, *self.lines), strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text.append("  ".join(cells).rstrip())
            if line is not None and line.note:
                text.append(f"    {line.note}")
        return "\n".join(text)

    def check(self) -> None:
        """Raise PreflightFailed with every problem there is.

        Where nothing is wrong but that the source does not answer, raises that error, which may
        pass by itself.
        """
        if not self.problems:
            return
        reasons = list(self.survey.errors.values())
        if len(self.problems) == 1 and reasons and self.problems[0].check == "source":
            silent = [error for error in reasons if isinstance(error, SourceUnreachable)]
            if len(silent) == len(reasons):
                raise silent[0]
        listed = "\n".join(f"- {line.check}: {_sentence(line)}" for line in self.problems)
        raise PreflightFailed(
            f"this run cannot succeed; nothing was fetched. {len(self.problems)} "
            f"problem{'s' if len(self.problems) > 1 else ''}:\n{listed}"
        )


def _cells(line: Line) -> tuple[str, str, str, str]:
    return line.check, line.needed, line.found, line.verdict


def _sentence(line: Line) -> str:
    figures = f"needs {line.needed}, there is {line.found}. " if line.needed else ""
    return f"{figures}{line.note}"
