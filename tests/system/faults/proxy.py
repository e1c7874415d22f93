"""A TCP proxy that does something at a chosen byte of a conversation.

HTTP without pipelining passes through it: a request is everything the client sends until the
server answers. A rule waits for a request that holds `pattern`, and acts when `after` bytes of
that request, or of its answer, have passed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

CHUNK_BYTES = 16 << 10
REMEMBERED_BYTES = 8 << 10
RESET = struct.pack("ii", 1, 0)
CONNECT_TIMEOUT_S = 5

Action = Callable[["Passage"], None]


@dataclass
class Rule:
    """What to do where. `times` counts down; a rule that is used up does nothing more."""

    pattern: bytes
    action: Action
    after: int = 0
    in_answer: bool = False
    skip: int = 0
    times: int = 1
    when: Callable[[], bool] = lambda: True
    fired: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Watch:
    """A rule whose request has begun on a connection; bytes to go until it acts."""

    rule: Rule
    left: int


class Passage:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self._tail = b""
        self._watches: list[_Watch] = []
        self._begun: set[int] = set()
        self._answering = False

    def cut(self) -> None:
        """End the connection on both sides by a reset."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def stall(self, seconds: float) -> None:
        """Let nothing pass for so long, or until the proxy closes."""
        self.proxy.closing.wait(seconds)

    def pump_requests(self) -> None:
        self._pump(self.client, self.server, self._see_request)

    def pump_answers(self) -> None:
        self._pump(self.server, self.client, self._see_answer)

    def _pump(
        self, origin: socket.socket, target: socket.socket, see: Callable[[bytes], None]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := origin.recv(CHUNK_BYTES):
                if self.proxy.delay_s:
                    self.proxy.closing.wait(self.proxy.delay_s)
                see(data)
                target.sendall(data)
        # Half closed is closed: neither of the two HTTP sides goes on after that.
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _see_request(self, data: bytes) -> None:
        if self._answering:
            self._answering, self._tail, self._begun, self._watches = False, b"", set(), []
        text = self._tail + data
        for rule in self.proxy.rules:
            found = text.find(rule.pattern)
            if found < 0 or id(rule) in self._begun or not rule.when():
                continue
            self._begun.add(id(rule))
            if rule.skip:
                rule.skip -= 1
            elif rule.times:
                rule.times -= 1
                seen_already = len(text) - found - len(data)
                self._watches.append(
                    _Watch(rule, rule.after - (0 if rule.in_answer else seen_already))
                )
        self._tail = text[-REMEMBERED_BYTES:]
        self._advance(len(data), in_answer=False)

    def _see_answer(self, data: bytes) -> None:
        self._answering = True
        self._advance(len(data), in_answer=True)

    def _advance(self, size: int, *, in_answer: bool) -> None:
        for watch in [w for w in self._watches if w.rule.in_answer == in_answer]:
            watch.left -= size
            if watch.left <= 0:
                self._watches.remove(watch)
                watch.rule.fired.set()
                watch.rule.action(self)


class FaultProxy:
    """Passes what comes to a free port of 127.0.0.1 on to another port there; a context manager.

    `delay_s` holds up every piece. While `down`, connections are refused by a reset at once.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.rules: list[Rule] = []
        self.delay_s = 0.0
        self.down = False
        self.closing = threading.Event()
        self._passages: list[Passage] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def on(
        self,
        pattern: bytes,
        action: Action,
        *,
        after: int = 0,
        in_answer: bool = False,
        skip: int = 0,
        times: int = 1,
        when: Callable[[], bool] = lambda: True,
    ) -> Rule:
        """Do something at a byte of a request with `pattern`, or of the answer to it.

        `skip` lets so many such requests pass first; only those count that come `when` it holds.
        """
        rule = Rule(pattern, action, after, in_answer, skip, times, when)
        self.rules.append(rule)
        return rule

    def cut_all(self) -> None:
        """End every connection by a reset."""
        for passage in self._passages:
            passage.cut()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        self.cut_all()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self.down:
                raise ConnectionRefusedError
            address = ("127.0.0.1", self.target)
            server = socket.create_connection(address, CONNECT_TIMEOUT_S)
            server.settimeout(None)
        except OSError:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        passage = Passage(self, client, server)
        self._passages.append(passage)
        threading.Thread(target=passage.pump_answers, daemon=True).start()
        passage.pump_requests()


def sleeping(seconds: float, then: Action) -> Action:
    """Return an action that lets the passage wait, then acts."""

    def act(passage: Passage) -> None:
        time.sleep(seconds)
        then(passage)

    return act
