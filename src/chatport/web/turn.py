"""One request on a connection and its reply, as the ASGI application sees them: `receive` and `send`.

Takes the place of uvicorn's RequestResponseCycle, of which it keeps the rules of framing. What differs: a fault of the
request's body is raised out of `receive` as the ApiError it is; a reply without a length to an HTTP/1.0 client ends
with the connection instead of being chunked; the reply's head says `connection: close` whenever what is left of the
request is too long to wait for.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Protocol

from uvicorn._types import ASGI3Application, ASGIReceiveEvent, ASGISendEvent, HTTPScope
from uvicorn.protocols.http.flow_control import FlowControl

from chatport.wire.errors import ApiError, Unavailable

Headers = list[tuple[bytes, bytes]]

STATUS_LINES = {status: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}
HOLD_BYTES = 16 * 1024
"""What is held back of a reply until the loop's turn ends, at most."""

WITHOUT_BODY = frozenset({204, 304})

CUT_SHORT = "chatport.cut_short"
"""The extension in a scope whose task was cancelled because the server ends: the client is there and can be told."""

STOP_RETRY = 1.0
"""Seconds until a client may ask again: the next process, or the one beside this, answers then."""


def stopping() -> Unavailable:
    """What a request hears that the server ends before it could be answered."""
    return Unavailable("The server is stopping.", retry_after=STOP_RETRY)


class Framing(Enum):
    """How a client knows where a reply's body ends."""

    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    NONE = auto()
    """It has none: the reply to HEAD, say."""


def response_head(status: int, headers: Headers) -> bytes:
    """The bytes of a reply's head. Raises ValueError for a header that would end its line early."""
    head = b"".join([STATUS_LINES[HTTPStatus(status)], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"])
    lines = len(headers) + 2
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError("a response header holds a control character")
    return head


class Line(Protocol):
    """What a turn needs of the connection it has its place on."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    drain_bytes: int

    @property
    def default_headers(self) -> Headers:
        """Headers of every reply."""
        ...

    def turn_over(self, turn: Turn) -> None:
        """The turn's reply is whole."""
        ...


class Turn:
    """A request's place on its connection: started when those before it are answered, over when its reply is whole."""

    def __init__(
        self, line: Line, scope: HTTPScope, *, keep_alive: bool, declared: int | None, continues: bool
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        """Whether the connection goes on after this turn; what the client asked for, or what we can afford."""
        self.complete = False
        """The reply is whole."""
        self.buffered = 0
        """Bytes of the body that nobody has taken yet."""
        self._task: asyncio.Task[None] | None = None
        self._line = line
        self._left = declared
        """Bytes of the body still to come; None: chunked."""
        self._awaits_continue = continues
        self._body: list[bytes] = []
        self._more = True
        self._handed_over = False
        """The application has the last piece of the body."""
        self._fault: ApiError | None = None
        self._gone = False
        self._cut = False
        self._wake: asyncio.Future[None] | None = None
        self._started = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._release: asyncio.Handle | None = None
        self._framing = Framing.LENGTH
        self._unsent = 0
        """Bytes of the reply's body that its head has announced and that are still to come."""

    # --- The connection's side ---------------------------------------------------------------------------------------

    def start(self, app: ASGI3Application, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Begins to answer, in a task of its own."""
        self._task = loop.create_task(self._run(app))
        return self._task

    def take(self, data: bytes) -> None:
        """A piece of the body has arrived."""
        if self._left is not None:
            self._left -= len(data)
        if not self.complete:
            self._body.append(data)
            self.buffered += len(data)
            self._notify()

    def body_ended(self) -> None:
        """The body is whole."""
        self._more = False
        self._left = 0
        self._notify()

    def break_off(self, fault: ApiError) -> None:
        """The rest of the body will not come: whoever waits for it gets the fault."""
        self._fault = fault
        self.keep_alive = False
        self._notify()

    def client_left(self) -> None:
        """Nobody waits for the reply any more: cancels the task that makes it. Called once."""
        self._gone = True
        if self._task is not None and not self._cut:
            self._task.cancel()

    def cut_short(self) -> None:
        """The server ends now: cancels the task, which has a moment to say so. Called once, before `client_left`."""
        self._cut = True
        self.scope["extensions"] = {CUT_SHORT: {}}
        if self._task is not None:
            self._task.cancel()

    async def _run(self, app: ASGI3Application) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            if not self.complete and not self._gone:
                # A reply that was cut must not look whole.
                self._flush()
                self._line.transport.abort()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # --- The application's side (ASGI) -------------------------------------------------------------------------------

    async def receive(self) -> ASGIReceiveEvent:
        """What has arrived of the body; when it was all taken, waits for the end of the reply."""
        if self._awaits_continue:
            self._awaits_continue = False
            self._line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.complete or self._fault or self._readable):
            self._wake = self._line.loop.create_future()
            await self._wake
        if self._fault is not None:
            raise self._fault
        if self.complete:
            return {"type": "http.disconnect"}
        body = b"".join(self._body)
        self._body.clear()
        self.buffered = 0
        self._handed_over = not self._more
        return {"type": "http.request", "body": body, "more_body": self._more}

    @property
    def _readable(self) -> bool:
        return bool(self._body) or (not self._more and not self._handed_over)

    async def send(self, message: ASGISendEvent) -> None:
        """The reply's head, then its body. Waits while the client reads too slowly."""
        if self._line.flow.write_paused:
            await self._line.flow.drain()
        if self._gone:
            return
        if message["type"] == "http.response.start":
            self._send_head(message["status"], list(message.get("headers", [])))
        elif message["type"] == "http.response.body":
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")

    def _send_head(self, status: int, headers: Headers) -> None:
        if self._started:
            raise RuntimeError("the reply's head was sent twice")
        self._started = True
        self._frame(status, headers)
        self.keep_alive = self.keep_alive and self._framing is not Framing.CLOSE and self._request_will_end()
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        self._write(response_head(status, self._line.default_headers + headers))

    def _frame(self, status: int, headers: Headers) -> None:
        """Decides how the client will know where the body ends, and says so in the headers."""
        length = next((int(value) for name, value in headers if name == b"content-length"), None)
        if self.scope["method"] == "HEAD" or status in WITHOUT_BODY:
            self._framing = Framing.NONE
        elif length is not None:
            self._unsent = length
        elif self.scope["http_version"] == "1.1":
            self._framing = Framing.CHUNKED
            headers.append((b"transfer-encoding", b"chunked"))
        else:
            self._framing = Framing.CLOSE

    def _request_will_end(self) -> bool:
        """Whether the rest of the request is short enough to be read and thrown away before the next one."""
        if not self._more:
            return True
        return not self._awaits_continue and (self._left or 0) <= self._line.drain_bytes

    def _send_body(self, data: bytes, *, more: bool) -> None:
        if not self._started or self.complete:
            raise RuntimeError("a body outside of a reply")
        match self._framing:
            case Framing.LENGTH:
                self._unsent -= len(data)
                if self._unsent < 0 or (self._unsent > 0 and not more):
                    raise RuntimeError("the reply's body is not as long as its head said")
            case Framing.CHUNKED:
                data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
            case Framing.NONE:
                data = b""
            case Framing.CLOSE:
                pass
        self._write(data)
        if not more:
            self._flush()
            self.complete = True
            self._body.clear()
            self._notify()
            self._line.turn_over(self)

    def _write(self, data: bytes) -> None:
        """What is sent in one turn of the loop leaves in one piece: each system call costs as much as a frame does."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HOLD_BYTES:
            self._flush()
        elif self._release is None:
            self._release = self._line.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._release is not None:
            self._release.cancel()
            self._release = None
        if self._held and not self._gone:
            self._line.transport.write(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0
