"""What every answer of the pages carries and what none of them tells."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, HTTPException, Request, status
from fastapi.responses import JSONResponse, Response

from laion.errors import (
    BadImage,
    BadRequest,
    ClickHouseBusy,
    ClickHouseUnreachable,
    EncoderMissing,
    LaionError,
    RowMissing,
    SearchTableMissing,
    TableMismatch,
)

log = logging.getLogger(__name__)

OWN_REQUEST_HEADER = "X-Laion-Request"
"""A page of another origin cannot send a header of its own without being asked to leave."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src {images}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
# Search shows pictures from wherever the dataset found them.
IMAGES_OF_SEARCH = "'self' blob: http: https:"

_SHOWN = {
    BadRequest: 400,
    BadImage: 400,
    RowMissing: 404,
    SearchTableMissing: 404,
    TableMismatch: 409,
    EncoderMissing: 501,
}
"""Errors whose text is meant for the caller and names nothing that is not theirs to know."""


def protect(app: FastAPI) -> None:
    """Add headers to every answer, and answer errors without inner details."""

    @app.middleware("http")
    async def add_headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        images = IMAGES_OF_SEARCH if request.url.path.endswith("/search") else "'self'"
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY.format(images=images)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "SAMEORIGIN"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(LaionError)
    async def answer_error(request: Request, error: LaionError) -> JSONResponse:
        code, text = describe_error(error)
        return JSONResponse({"error": text}, code)

    @app.exception_handler(Exception)
    async def answer_bug(request: Request, error: Exception) -> JSONResponse:
        code, text = describe_error(error)
        return JSONResponse({"error": text}, code)


def describe_error(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the text for an error; what the text leaves out is logged."""
    for kind, code in _SHOWN.items():
        if isinstance(error, kind):
            return code, str(error)
    number = secrets.token_hex(4)
    log.error("Error %s of the pages of laion", number, exc_info=error)
    if isinstance(error, ClickHouseUnreachable):
        what = "ClickHouse does not answer."
    elif isinstance(error, ClickHouseBusy):
        what = "ClickHouse is too busy, or the query took more than it may."
    else:
        what = "That did not work."
    return 503, f"{what} The log of Airflow's API server says why, at error {number}."


def require_own_request(request: Request) -> None:
    """Refuse a request that a page of another origin could have made the browser send."""
    if OWN_REQUEST_HEADER not in request.headers:
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, f"The header {OWN_REQUEST_HEADER} is missing."
        )
