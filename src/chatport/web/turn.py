"""One request on a connection and its reply, as the application sees them: it takes the body, and replies.

No ASGI between the two: nobody else's application was ever meant to run here, and its messages cost more than what
they carry. A fault of the request's body is raised where the body is taken, as the ApiError it is. The reply's head
says `connection: close` whenever what is left of the request is too long to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Protocol, TypeAlias

from msgspec import Struct
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from chatport.wire.errors import ApiError, BodyTooLarge, Unavailable

Headers = list[tuple[bytes, bytes]]

STATUS_LINES = {int(status): f"HTTP/1.1 {status} {status.phrase}".encode() for status in HTTPStatus}
NO_CONTENT = 204

CR, LF, NUL = b"\r\n\0"
"""What no header may hold. Numbers: of `in`, bytes are first asked whether they are one, which costs 3,000 instructions
where they are not."""

HOLD_BYTES = 16 * 1024
"""What is held back of a stream until the loop's turn ends, at most."""

STOP_RETRY = 1.0
"""Seconds until a client may ask again: the next process, or the one beside this, answers then."""


def stopping() -> Unavailable:
    """What a request hears that the server ends before it could be answered."""
    return Unavailable("The server is stopping.", retry_after=STOP_RETRY)


def response_head(status: int, headers: Headers) -> bytes:
    """The bytes of a reply's head. Raises ValueError for a header that would end its line early."""
    lines = [*map(b": ".join, headers)]
    text = b"".join(lines)
    if CR in text or LF in text or NUL in text:
        raise ValueError("a response header holds a control character")
    return b"\r\n".join([STATUS_LINES[status], *lines, b"", b""])


class Request(Struct, frozen=True):
    """A request's head, as it was read."""

    method: str
    path: bytes
    """Still percent-encoded."""
    query: bytes
    headers: dict[bytes, bytes]
    """By names in lower case; the values of repeated ones joined by commas, as RFC 9110 §5.3 reads them."""
    version: str
    """1.1 or 1.0."""
    keep_alive: bool
    """Whether the client wants the connection to go on."""
    length: int | None
    """Of the body; None: chunked."""
    awaits_continue: bool
    """The client sends the body when it has heard a 100."""


class Line(Protocol):
    """What a turn needs of the connection it has its place on."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    """It has the headers of every reply: the date."""
    tasks: set[asyncio.Task[None]]
    """Of every turn that runs: the server waits for them."""
    peer: str | None
    drain_bytes: int

    def turn_over(self, turn: Turn) -> None:
        """The turn's reply is whole."""
        ...


class Turn:
    """A request's place on its connection: started when those before it are answered, over when its reply is whole."""

    def __init__(self, line: Line, request: Request) -> None:
        self.request = request
        self.peer = line.peer
        """Whom the connection comes from: an address, or `unix`."""
        self.keep_alive = request.keep_alive
        """Whether the connection goes on after this turn; what the client asked for, or what we can afford."""
        self.status = 0
        """Of the reply whose head is written; 0 before that."""
        self.complete = False
        """The reply is whole."""
        self.cut = False
        """The server ends this request: a cancellation says otherwise that the client has left."""
        self.buffered = 0
        """Bytes of the body that nobody has taken yet."""
        self._line = line
        self._task: asyncio.Task[None] | None = None
        self._body: list[bytes] = []
        self._left = request.length
        """Bytes of the body still to come; None: chunked."""
        self._more = True
        """The body's end has not come."""
        self._awaits_continue = request.awaits_continue
        self._fault: ApiError | None = None
        self._news: asyncio.Future[None] | None = None
        """What whoever takes the body waits for."""
        self._gone = False
        self._chunked = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._release: asyncio.Handle | None = None

    # --- The connection's side ---------------------------------------------------------------------------------------

    def start(self, application: Application) -> None:
        """Begins to answer, in a task of its own."""
        self._task = self._line.loop.create_task(application(self))
        self._line.tasks.add(self._task)
        self._task.add_done_callback(self._ended)

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
        self._notify()

    def break_off(self, fault: ApiError) -> None:
        """The rest of the body will not come: whoever takes it gets the fault."""
        self._fault = fault
        self.keep_alive = False
        self._notify()

    def client_left(self) -> None:
        """Nobody waits for the reply any more: cancels the task that makes it. Called once."""
        self._gone = True
        if self._task is not None and not self.cut:
            self._task.cancel()

    def cut_short(self) -> None:
        """The server ends now: cancels the task, which has a moment to say so. Called once, before `client_left`."""
        self.cut = True
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._line.tasks.discard(task)
        if not self.complete and not self._gone:
            # A reply that was cut must not look whole.
            self._flush()
            self._line.transport.abort()

    def _notify(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # --- The application's side --------------------------------------------------------------------------------------

    async def body(self, limit: int) -> bytes:
        """The request's body, once. Raises BodyTooLarge beyond `limit` bytes, and what broke it off."""
        if (self.request.length or 0) > limit:
            raise BodyTooLarge(limit)
        if self._awaits_continue:
            self._awaits_continue = False
            self._line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces: list[bytes] = []
        size = 0
        while True:
            if self._fault is not None:
                raise self._fault
            size += self.buffered
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(b"".join(self._body))  # of a body in tiny chunks, each piece is 30 times its bytes
            self._body.clear()
            self.buffered = 0
            if not self._more:
                return b"".join(pieces)
            self._news = self._line.loop.create_future()
            await self._news

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole reply. HEAD hears only how long its body would be; a 204 has none, and must not say how long that
        is (RFC 9110 §8.6)."""
        if self._ready() or await self._drained():
            framing = [] if status == NO_CONTENT else [(b"content-length", b"%d" % len(body))]
            head = self._head(status, headers + framing)
            self._line.transport.write(head if self.request.method == "HEAD" else head + body)
            self._over()

    async def head(self, status: int, headers: Headers) -> None:
        """The head of a reply whose length nobody knows yet. To HTTP/1.0, where no connection goes on, it ends with
        the connection."""
        if self._ready() or await self._drained():
            self._chunked = self.request.version == "1.1"
            framing = [(b"transfer-encoding", b"chunked")] if self._chunked else []
            self._write(self._head(status, headers + framing))

    def now(self, data: bytes) -> bool:
        """A piece of that reply, not empty, if the client is there and reads. False: it was not taken."""
        if self._ready():
            self._write(self._piece(data))
            return True
        return False

    async def data(self, data: bytes) -> None:
        """A piece of that reply."""
        if data and (self._ready() or await self._drained()):  # an empty chunk would be the last
            self._write(self._piece(data))

    async def end(self) -> None:
        """Its end."""
        if self._ready() or await self._drained():
            if self._chunked:
                self._write(b"0\r\n\r\n")
            self._flush()
            self._over()

    def _piece(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _ready(self) -> bool:
        """Whether the client is there and reads: then nothing need be waited for."""
        return not self._gone and not self._line.flow.write_paused

    async def _drained(self) -> bool:
        """Waits while the client reads too slowly; whether it is still there."""
        await self._line.flow.drain()
        return not self._gone

    def _head(self, status: int, headers: Headers) -> bytes:
        if self.status:
            raise RuntimeError("the reply's head was sent twice")
        headers = self._line.server_state.default_headers + headers
        self.keep_alive = self.keep_alive and self._request_will_end()
        if not self.keep_alive:
            headers.append((b"connection", b"close"))
        head = response_head(status, headers)
        self.status = status
        return head

    def _request_will_end(self) -> bool:
        """Whether the rest of the request is short enough to be read and thrown away before the next one."""
        if not self._more:
            return True
        return not self._awaits_continue and (self._left or 0) <= self._line.drain_bytes

    def _over(self) -> None:
        self.complete = True
        self._body.clear()
        self._line.turn_over(self)

    def _write(self, data: bytes) -> None:
        """What is sent in one turn of the loop leaves in one piece: each system call costs as much as a frame does."""
        if self.complete or not self.status:
            raise RuntimeError("a body outside of a reply")
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


Application: TypeAlias = Callable[[Turn], Coroutine[None, None, None]]
"""Answers each turn, whatever happens."""
