"""A request of the ClickHouse HTTP interface: its parameters, credentials and body."""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from laion.embedded.compression import Decompressor
from laion.embedded.exception import DBError, not_implemented
from laion.embedded.sessions import MAX_TIMEOUT_S

USER = "default"
CHUNK_BYTES = 1024 * 1024
_MAX_FORM_FIELD_BYTES = 64 * 1024 * 1024
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OFF = ("", "0", "false")
_WITHOUT_EFFECT = {
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "http_headers_progress_interval_ms",
    "password",
    "quota_key",
    "send_progress_in_http_headers",
    "stacktrace",
    "user",
}
_OWN = {
    "cancel_http_readonly_queries_on_client_close",
    "database",
    "default_format",
    "enable_http_compression",
    "query",
    "query_id",
    "session_check",
    "session_id",
    "session_timeout",
    "wait_end_of_query",
}


@dataclass(frozen=True)
class Parameters:
    """What the URL and the headers of a request ask for."""

    query: str = ""
    database: str = ""
    default_format: str = "TabSeparated"
    query_id: str = ""
    session_id: str = ""
    session_timeout_s: int = 60
    session_check: bool = False
    wait_end_of_query: bool = False
    accept_encoding: str = ""
    cancel_on_disconnect: bool = False
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def read_parameters(pairs: list[tuple[str, str]], headers: Headers) -> Parameters:
    """Sort the URL's parameters into the interface's own, query parameters and settings.

    Raises:
        DBError: a parameter cannot be used or is not supported.
    """
    own: dict[str, str] = {}
    params: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name, value in pairs:
        if name in _OWN:
            own[name] = value
        elif name.startswith("param_"):
            params[name.removeprefix("param_")] = value
        elif name in ("compress", "decompress"):
            if value not in _OFF:
                raise not_implemented(f"The parameter {name}=1 (native block compression)")
        elif name == "role":
            raise not_implemented("The parameter role")
        elif name not in _WITHOUT_EFFECT:
            if not _SETTING.fullmatch(name):
                raise DBError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
            settings[name] = value
    compress = own.get("enable_http_compression", "0") not in _OFF
    return Parameters(
        query=own.get("query", ""),
        database=own.get("database", "") or headers.get("x-clickhouse-database", ""),
        default_format=headers.get("x-clickhouse-format", "")
        or own.get("default_format", "")
        or "TabSeparated",
        query_id=own.get("query_id") or str(uuid.uuid4()),
        session_id=own.get("session_id", ""),
        session_timeout_s=_read_timeout(own.get("session_timeout", "60")),
        session_check=own.get("session_check", "0") not in _OFF,
        wait_end_of_query=own.get("wait_end_of_query", "0") not in _OFF,
        accept_encoding=headers.get("accept-encoding", "") if compress else "",
        cancel_on_disconnect=own.get("cancel_http_readonly_queries_on_client_close", "0")
        not in _OFF,
        params=params,
        settings=settings,
    )


def check_credentials(request: Request, password: str) -> None:
    """Let only the user ``default`` with the right password pass.

    Raises:
        DBError: AUTHENTICATION_FAILED, in the words of a server.
    """
    user, given = _read_credentials(request)
    same = secrets.compare_digest(given.encode(), password.encode())
    if user != USER or not same:
        raise DBError(
            516,
            "AUTHENTICATION_FAILED",
            f"{user}: Authentication failed: password is incorrect, "
            "or there is no user with such name.",
        )


async def read_body(request: Request) -> AsyncIterator[bytes]:
    """The request's body as it arrives, without its content encoding.

    Raises:
        DBError: the encoding is not supported or the data are broken.
        starlette.requests.ClientDisconnect: the client went away before the end.
    """
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding in ("", "identity"):
        async for chunk in request.stream():
            yield chunk
        return
    decompressor = Decompressor(encoding)
    async for chunk in request.stream():
        for piece in decompressor.feed(chunk):
            yield piece
            # Other requests have their turn: these pieces may go on for long without a wait.
            await asyncio.sleep(0)
    decompressor.finish()


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The fields of a multipart form.

    Raises:
        DBError: the form carries a file, which would be external data, is encoded or is none.
    """
    if request.headers.get("content-encoding"):
        raise not_implemented("A compressed multipart form")
    fields: list[tuple[str, str]] = []
    try:
        async with request.form(max_files=1, max_part_size=_MAX_FORM_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    raise not_implemented("External data")
                fields.append((name, value))
    except HTTPException as error:
        raise DBError(36, "BAD_ARGUMENTS", f"The multipart form: {error.detail}") from error
    return fields


def is_multipart(request: Request) -> bool:
    """Whether the body is a multipart form, as opposed to SQL or data."""
    return request.headers.get("content-type", "").startswith("multipart/form-data")


def read_urlencoded(request: Request, body: bytes) -> list[tuple[str, str]] | None:
    """The fields of an urlencoded form; None if the body is not one.

    ``curl -d 'SELECT 1'`` declares SQL to be a form, so a form is only what begins like one.
    """
    declared = request.headers.get("content-type", "")
    if declared.startswith("application/x-www-form-urlencoded") and body.startswith(
        (b"query=", b"param_")
    ):
        return parse_qsl(body.decode(), keep_blank_values=True)
    return None


def with_form(asked: Parameters, fields: list[tuple[str, str]]) -> Parameters:
    """Add what the fields of a form ask for.

    Raises:
        DBError: a field is neither the query nor a parameter of it.
    """
    query, params = asked.query, dict(asked.params)
    for name, value in fields:
        if name == "query":
            query += value
        elif name.startswith("param_"):
            params[name.removeprefix("param_")] = value
        else:
            raise not_implemented(f"The form field '{name}'")
    return replace(asked, query=query, params=params)


def _read_credentials(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(encoded).decode().partition(":")
        except (Base64Error, UnicodeDecodeError):
            return "", ""
        return user, password
    header, url = request.headers, request.query_params
    user = header.get("x-clickhouse-user") or url.get("user") or USER
    return user, header.get("x-clickhouse-key") or url.get("password") or ""


def _read_timeout(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > MAX_TIMEOUT_S:
        raise DBError(
            374,
            "INVALID_SESSION_TIMEOUT",
            f"Invalid session timeout '{text}': it is a number of seconds up to {MAX_TIMEOUT_S}",
        )
    return int(text)
