"""What rows must be like, beside near: the filters of `laion.columns`, as SQL.

In Python a filter is left out, None, or has a value. In a view all are parameters that may be NULL,
and lists are one text, separated by commas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from laion.columns import COUNT, FILTERED, TEXT, Column
from laion.errors import BadRequest

Filters = Mapping[str, Any]
"""Values by the parameters of the filters. None, no values, an empty text and a least size of 0 do
not narrow. Rows whose value is unknown (NaN) pass."""

Test = Callable[[Column, str], str]
"""Makes what is searched answer a condition of a base table's column."""

KNOWN = {column.filter.parameter: column for column in FILTERED if column.filter}


def narrowing(filters: Filters) -> dict[str, Any]:
    """Return the filters that narrow. Raises BadRequest for those that cannot be meant."""
    if unknown := sorted(set(filters) - set(KNOWN)):
        raise BadRequest(f"no filter {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    for name, value in filters.items():
        if _is_list(KNOWN[name]) and isinstance(value, str):
            raise BadRequest(f"the filter {name} is a list of values, such as [{value!r}]")
    return {
        name: value
        for name, value in filters.items()
        if value is not None
        and not (KNOWN[name].type is TEXT and not value)
        and not (KNOWN[name].type is COUNT and value == 0)
    }


def conditions(filters: Filters, test: Test) -> list[str]:
    """Return the conditions of filters that narrow, with their parameters in braces."""
    return [test(KNOWN[name], KNOWN[name].condition) for name in filters]


def view_conditions(test: Test) -> list[str]:
    """Return the conditions of all filters, each of which may be NULL."""
    found = []
    for name, column in KNOWN.items():
        given = f"{{{name}:Nullable({column.type.clickhouse})}}"
        value = f"assumeNotNull({given})"
        if _is_list(column):
            value = f"splitByChar(',', replaceAll({value}, ', ', ','))"
        found.append(f"({given} IS NULL OR {test(column, column.compared_with(value))})")
    return found


def view_arguments(filters: Filters) -> dict[str, Any] | None:
    """Return filters as a view takes them; None where a value has the comma that separates them."""
    values = {}
    for name, value in filters.items():
        if _is_list(KNOWN[name]):
            if any("," in one for one in value):
                return None
            value = ",".join(value)
        values[name] = value
    return values


def view_parameter(name: str) -> str:
    """Return how a view's parameter is bound."""
    return f"{{{name}:Nullable({KNOWN[name].type.clickhouse})}}"


def _is_list(column: Column) -> bool:
    return column.type is TEXT and not (column.filter and column.filter.contains)
