"""The ClickHouse HTTP interface as an ASGI application."""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from laion.embedded.answer import (
    Answer,
    Identity,
    answer_headers,
    encode_blocks,
    new_exception_tag,
)
from laion.embedded.compression import choose_compressor
from laion.embedded.engine import Engine, Handle, Result, Stats
from laion.embedded.exception import DBError
from laion.embedded.execution import (
    SPOOLED_FORMATS,
    close_blocks,
    insert_from_file,
    insert_from_pipe,
    needs_streaming,
    prepare,
    start_statement,
    take_apart,
)
from laion.embedded.pipe import Pipe
from laion.embedded.request import (
    CHUNK_BYTES,
    Parameters,
    check_credentials,
    is_multipart,
    read_body,
    read_form,
    read_parameters,
    with_form,
)
from laion.embedded.sessions import Sessions
from laion.embedded.statement import SHORT_BYTES, InlineInsert

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 64
_MAX_QUERY_BYTES = 64 * 1024 * 1024
_LOOK_EVERY_BYTES = 32 * 1024 * 1024
_FREE_ABOVE_BYTES = 1000 * 1024 * 1024
_ASK_AGAIN_S = 0.01


class Interface:
    """The endpoint ``/``: one statement a request."""

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor, spool: Path, password: str):
        self._engine = engine
        self._threads = threads
        self._spool = spool
        self._password = password
        self._running: set[str] = set()
        self._inserted_bytes = 0
        self.sessions = Sessions(
            engine.new_handle, lambda handle: self._run(engine.close_handle, handle)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        query_id = request.query_params.get("query_id", "")
        try:
            check_credentials(request, self._password)
            asked = read_parameters(request.query_params.multi_items(), request.headers)
            query_id = asked.query_id
            if request.method in ("GET", "HEAD") and not request.query_params:
                await PlainTextResponse("Ok.\n")(scope, receive, send)
                return
            # The response ends after the session has been released: the client's next request
            # may follow at once.
            if (rest := await self._serve(request, send, asked)) is not None:
                await send({"type": "http.response.body", "body": rest})
        except ClientDisconnect:
            return
        except DBError as error:
            with suppress(ClientDisconnect):
                await _drain(request)
            headers = self._headers(query_id) | {"X-ClickHouse-Exception-Code": str(error.code)}
            body = error.body(self._engine.version)
            await PlainTextResponse(body, error.status, headers)(scope, receive, send)

    async def _run(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: do(*args, **kwargs))

    async def _serve(self, request: Request, send: Send, asked: Parameters) -> bytes | None:
        """Run the statement and send the answer but for its end; see `_send`."""
        body = read_body(request)
        if is_multipart(request):
            asked = with_form(asked, await read_form(request))
            body = _nothing()
        head, complete = await _read_up_to(body, CHUNK_BYTES)
        asked, text, insert = await self._take_apart(request, asked, head, complete)
        async with self._handle(asked) as handle:
            if insert is not None and needs_streaming(insert, asked, complete):
                sql = text[: insert.data_start]
                await self._run(prepare, self._engine, handle, request.method, asked, sql)
                data = _chain(text[insert.data_start :], body)
                stats = await self._insert(handle, insert, data)
                answer = Answer(iter(()), stats=stats, is_at_hand=True)
                return await self._send(send, asked, answer, asyncio.Event())
            if not complete:
                rest, complete = await _read_up_to(body, _MAX_QUERY_BYTES)
                text += rest
                if not complete:
                    raise DBError(229, "QUERY_IS_TOO_LARGE", "The query is larger than 64 MiB")
            async with self._watched(request, asked) as gone:
                answer = await self._run(
                    start_statement,
                    *(self._engine, handle, request.method, asked, text, insert, self._spool),
                )
                try:
                    return await self._send(send, asked, answer, gone)
                finally:
                    if not answer.is_at_hand:
                        await self._run(close_blocks, answer.blocks)

    async def _take_apart(
        self, request: Request, asked: Parameters, head: bytes, complete: bool
    ) -> tuple[Parameters, bytes, InlineInsert | None]:
        """As `take_apart`; what is long is done in a thread, where it holds nobody up."""
        if len(asked.query) + len(head) <= SHORT_BYTES:
            return take_apart(request, asked, head, complete)
        return await self._run(take_apart, request, asked, head, complete)

    @asynccontextmanager
    async def _handle(self, asked: Parameters) -> AsyncIterator[Handle]:
        """The session's handle, or one for this request alone."""
        if asked.query_id in self._running:
            raise DBError(
                216,
                "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                f"Query with id = {asked.query_id} is already running.",
            )
        self._running.add(asked.query_id)
        try:
            if asked.session_id:
                handle = self.sessions.acquire(asked.session_id, asked.session_check)
                try:
                    yield handle
                finally:
                    self.sessions.release(asked.session_id, asked.session_timeout_s)
            else:
                handle = self._engine.new_handle()
                try:
                    yield handle
                finally:
                    # Nobody needs to wait for that: the handle is of no use to another request.
                    self._threads.submit(self._engine.close_handle, handle)
        finally:
            self._running.discard(asked.query_id)

    @asynccontextmanager
    async def _watched(self, request: Request, asked: Parameters) -> AsyncIterator[asyncio.Event]:
        """An event that tells when the client has gone; a query that only reads ends with it."""
        gone = asyncio.Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()
            if asked.cancel_on_disconnect:
                await self._run(self._engine.kill_read_only, asked.query_id)

        watcher = asyncio.create_task(watch())
        try:
            yield gone
        finally:
            watcher.cancel()

    async def _insert(
        self, handle: Handle, insert: InlineInsert, data: AsyncIterator[bytes]
    ) -> Stats:
        """Run an INSERT whose data are still arriving; nothing is committed at the end of an
        incomplete body, but blocks that were complete before may have been."""
        if insert.format.lower() in SPOOLED_FORMATS:
            return await self._insert_file(handle, insert, data)
        pipe = Pipe()
        statement = insert_from_pipe(insert, pipe.path)
        reading = asyncio.create_task(self._run(handle.query, statement, "TabSeparated", {}))
        try:
            async for chunk in _batched(data):
                await pipe.write(chunk, reading)
                await self._account(len(chunk))
            await pipe.finish(reading)
            return (await reading).stats
        finally:
            if not reading.done():
                await self._give_up(pipe, reading)
            pipe.close()

    async def _give_up(self, pipe: Pipe, reading: asyncio.Task[Result]) -> None:
        """End an INSERT whose data broke off; the end of the data alone would commit them."""
        # In a thread of its own: all of ours may be waiting for data.
        while not await asyncio.to_thread(self._engine.kill_insert, pipe.path):
            await asyncio.wait({reading}, timeout=_ASK_AGAIN_S)
            if reading.done():
                break
        pipe.cut()
        with suppress(DBError):
            await reading

    async def _account(self, inserted_bytes: int) -> None:
        """Have memory freed while data are inserted, when much of it is resident.

        Left alone, chDB's allocator keeps what the blocks of earlier data took: 3 GB after four
        bodies of 200 MB in parallel. Freeing always would cost half of an INSERT's CPU.
        """
        self._inserted_bytes += inserted_bytes
        if self._inserted_bytes >= _LOOK_EVERY_BYTES:
            self._inserted_bytes = 0
            if _resident_bytes() > _FREE_ABOVE_BYTES:
                # In a thread of its own: all of ours may be waiting for data.
                await asyncio.to_thread(self._engine.free_memory)

    async def _insert_file(
        self, handle: Handle, insert: InlineInsert, data: AsyncIterator[bytes]
    ) -> Stats:
        path = self._spool / f"{uuid.uuid4()}.{insert.format.lower()}"
        try:
            with path.open("wb") as file:
                async for chunk in _batched(data):
                    await self._run(file.write, chunk)
                    await self._account(len(chunk))
            statement = insert_from_file(insert, path)
            result = await self._run(handle.query, statement, "TabSeparated", {})
            return result.stats
        finally:
            path.unlink(missing_ok=True)

    async def _send(
        self, send: Send, asked: Parameters, answer: Answer, gone: asyncio.Event
    ) -> bytes | None:
        """Send an answer, and return what is left of it to end it with; None if it broke off."""
        tag = new_exception_tag()
        headers = self._headers(asked.query_id) | answer_headers(answer)
        headers["X-ClickHouse-Exception-Tag"] = tag
        headers["X-ClickHouse-Timezone"] = (
            asked.settings.get("session_timezone") or self._engine.timezone
        )
        chosen = choose_compressor(asked.accept_encoding) if answer.format is not None else None
        if chosen is not None:
            headers["Content-Encoding"] = chosen[0]
        compressor = chosen[1] if chosen is not None else Identity()
        chunks = encode_blocks(answer, compressor, tag, self._engine.version)
        if answer.is_at_hand:
            body = b"".join(chunks)
            headers["Content-Length"] = str(len(body))
            await _start(send, headers)
            return body
        await _start(send, headers)
        try:
            while (chunk := await self._run(next, chunks, None)) is not None:
                if gone.is_set():
                    return None
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except DBError:
            # Without its end, uvicorn closes the connection: no client takes it for complete.
            return None
        return b""

    def _headers(self, query_id: str) -> dict[str, str]:
        # A header takes no other characters; the client may have chosen any.
        shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in query_id)
        return {
            "X-ClickHouse-Query-Id": shown,
            "X-ClickHouse-Server-Display-Name": "embedded",
        }


def make_app(engine: Engine, threads: ThreadPoolExecutor, spool: Path, password: str) -> Starlette:
    """The application serving ``engine`` to the user ``default`` with ``password``."""
    interface = Interface(engine, threads, spool, password)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await interface.sessions.close()

    async def ping(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("Ok.\n")

    return Starlette(
        routes=[
            Route("/ping", ping),
            Route("/replicas_status", ping),
            Route("/", interface, methods=["GET", "HEAD", "POST"]),
        ],
        lifespan=lifespan,
    )


async def _start(send: Send, headers: dict[str, str]) -> None:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _read_up_to(body: AsyncIterator[bytes], limit: int) -> tuple[bytes, bool]:
    """The body's next bytes, a chunk more than ``limit`` at most, and whether it has ended."""
    taken = bytearray()
    async for chunk in body:
        taken += chunk
        if len(taken) >= limit:
            return bytes(taken), False
    return bytes(taken), True


async def _batched(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least a chunk, but for the last."""
    batch: list[bytes] = []
    size = 0
    async for piece in data:
        batch.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def _resident_bytes() -> int:
    """The memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _drain(request: Request) -> None:
    """Read what is left of the body, so that the client gets to reading the answer."""
    with suppress(RuntimeError):  # Raised if it has been read already.
        async for _chunk in request.stream():
            pass
