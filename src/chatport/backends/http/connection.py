"""One connection to an upstream: a request goes out, an answer comes in, and perhaps another.

An asyncio protocol around httptools' response parser. It is driven from two sides, the transport's and that of the one
task which waits for the answer (or has what arrives told to a `listener`), and does nothing on its own: no timers (the
pool sweeps the deadlines of all its connections), no retries, no task.

Reading pauses when `READ_AHEAD` bytes wait to be taken, so that a slow client slows its upstream. Sending is one write
of bytes that are in memory anyway; how far it got is known from the transport's water marks, which are set lowest:
paused means that some of the request has not left.

httptools can't be told that the connection ended, so a body that is delimited by the end is recognised here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

import httptools
from msgspec import Struct

from chatport.backends.http.faults import Broken, Fault, Phase, TimedOut, TooLarge

READ_AHEAD = 256 * 1024
"""Bytes of an answer that wait to be taken before reading pauses."""

MAX_HEAD = 64 * 1024
"""Bytes of an answer's first line and headers. Precedent: ours for requests; the largest of known upstreams is 8 KB."""


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds that each phase of a request may take."""

    connect: float = 5.0
    """To a usable connection: name, TCP, proxy and TLS. Precedent: the official SDKs."""
    send: float = 60.0
    """Until the last byte of the request has left."""
    first_byte: float = 600.0
    """From there to the first byte of the answer: without streaming that is the whole generation."""
    between: float = 300.0
    """Silence within an answer. Models that reason in secret are silent for minutes."""
    total: float = 3600.0
    """From the request's first byte to the answer's last."""


DEFAULT_TIMEOUTS = Timeouts()


LINGER = 1.0
"""Seconds, and `READ_AHEAD` bytes, for the end of an answer that nobody reads on; later its connection is closed."""


_SEND, _FIRST_BYTE, _BETWEEN = Phase.SEND, Phase.FIRST_BYTE, Phase.BETWEEN
"""By names of their own: reading a member off its class costs as much as three calls."""


class _Surplus(Exception):
    """Bytes behind the end of the answer: raised inside the parser, which stops there."""


class Connection(asyncio.Protocol):
    """A connection and, while it is lent, the answer on it: `more` until there is a `status`, then `header`, and
    `take` or `body`."""

    def __init__(self) -> None:
        self.status = 0
        """Of the answer; 0 until its head is whole."""
        self.deadline = inf
        """Loop time at which the running phase has taken too long; looked at by the pool's sweep."""
        self.ends_by = inf
        """Loop time at which the whole answer must be there."""
        self.idle_since = 0.0
        self.answered = False
        """A byte of the answer was seen: from here on the request can't be sent again."""
        self.complete = False
        """The answer is whole."""
        self.buffered = 0
        """Bytes of the body that have arrived and nobody took yet."""
        self.fault: Fault | None = None
        """What the answer ended with."""
        self.listener: Callable[[], None] | None = None
        """Called when something happens to the answer, instead of `more`. Whoever sets it takes it away again."""
        self.transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._loop: asyncio.AbstractEventLoop
        self._timeouts = DEFAULT_TIMEOUTS
        self._phase = _SEND
        self._alive = False
        self._keep = False
        self._busy = False
        self._unsent = False
        self._paused = False
        self._head_done = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._unparsed = 0
        """Bytes since the parser last got somewhere: an endless head, or chunk extension, ends here."""
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._between = DEFAULT_TIMEOUTS.between
        self._finished = False
        self._lingering: Callable[[Connection], None] | None = None

    # --- The pool's side ---------------------------------------------------------------------------------------------

    def usable(self) -> bool:
        """Whether another request may go out here."""
        return self._alive and not self._busy and not self.transport.is_closing()

    def begin(self, request: bytes, timeouts: Timeouts) -> None:
        """Sends a request, which is whole: with marks this low, uvloop makes a system call of each write."""
        self.status = 0
        self.answered = self.complete = self._head_done = self._keep = False
        self._headers = []
        self._unparsed = self.buffered = 0
        self._pieces.clear()
        self.fault = None
        self._busy = True
        self._finished = False
        self._timeouts = timeouts
        self._between = timeouts.between
        self._phase = _SEND
        now = self._loop.time()
        self.deadline, self.ends_by = now + timeouts.send, now + timeouts.total
        self.transport.write(request)
        if not self._unsent:
            self._await_answer()

    def release(self) -> bool:
        """The answer is done with. True: the connection may be used again; otherwise it is closed."""
        self.deadline = self.ends_by = inf
        self._busy = False
        self._pieces.clear()
        if self.complete and self._keep and not self._unsent and not self._paused and self.usable():
            self.idle_since = self._loop.time()
            return True
        self.abort()
        return False

    def may_linger(self) -> bool:
        """Whether the answer's last bytes, which nobody wants, are still to come."""
        return self._finished and not self.complete and self.fault is None and self._alive

    def linger(self, then: Callable[[Connection], None]) -> None:
        """Waits a moment for the answer's end, throwing away what comes; calls `then` when it is there, or won't be."""
        self._finished = False
        self._lingering = then
        self._pieces.clear()
        self.buffered = 0
        self.deadline = self.ends_by = self._loop.time() + LINGER

    def abort(self) -> None:
        """Closes now, whatever is under way: the upstream sees it at once."""
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Ends what has been waited for too long. A client that takes nothing is no fault of the upstream's."""
        if now > self.ends_by:
            self._expire(Phase.TOTAL, self._timeouts.total)
        elif now > self.deadline and not self._paused:
            seconds = {_SEND: self._timeouts.send, _FIRST_BYTE: self._timeouts.first_byte}
            self._expire(self._phase, seconds.get(self._phase, self._between))

    # --- The side of the task that asked -----------------------------------------------------------------------------

    def more(self) -> asyncio.Future[None]:
        """Done when something happens to the answer. Raises the Fault that it ended with."""
        if self.fault is not None:
            raise self.fault
        self._waiter = self._loop.create_future()
        return self._waiter

    def header(self, name: bytes) -> bytes | None:
        """A header of the answer, `name` in lower case; the first of several."""
        return next((value for given, value in self._headers if given.lower() == name), None)

    def take(self) -> bytes:
        """What has arrived of the body and nobody took yet: perhaps nothing, then there is `more` unless `complete`."""
        if not self._pieces:
            return b""
        data = b"".join(self._pieces)  # of one piece, that is the piece itself
        self._pieces.clear()
        self.buffered = 0
        if self._paused:
            self._paused = False
            self.deadline = self._loop.time() + self._between
            self.transport.resume_reading()
        return data

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises TooLarge for one of more than `limit` bytes, or another Fault."""
        pieces, size = [], 0
        while True:
            size += self.buffered
            if size > limit:
                raise TooLarge(f"an answer of more than {limit} bytes")
            pieces.append(self.take())
            if self.complete:
                return b"".join(pieces)
            await self.more()

    def hurry(self, seconds: float) -> None:
        """From here on, silence in this answer may last no longer than this."""
        self._between = min(self._between, seconds)
        self.deadline = min(self.deadline, self._loop.time() + seconds)

    def finish(self) -> None:
        """Nothing more is wanted of this answer, which ended well: its connection may be kept when the end is there."""
        self._finished = True

    def _wake(self) -> None:
        if self._lingering is not None and (self.complete or self.fault is not None):
            then, self._lingering = self._lingering, None
            then(self)
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None
        if self.listener is not None:
            self.listener()

    # --- The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._loop = asyncio.get_running_loop()
        self._alive = True
        transport.set_write_buffer_limits(1, 0)  # at 0, the standard library's TLS would pause without end

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False
        if self._busy and self._phase is _SEND:
            self._await_answer()

    def data_received(self, data: bytes) -> None:
        if not self._busy:  # nobody asked: whatever this is, it must not be taken for the next answer
            self.abort()
            return
        self.answered = True
        self._phase = _BETWEEN
        self.deadline = self._loop.time() + self._between
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Broken("the upstream switched to another protocol"))
        except httptools.HttpParserError as exc:
            self._parsing_ended(exc)
        else:
            if self._unparsed > MAX_HEAD:
                self._fail(TooLarge(f"an answer's head of more than {MAX_HEAD} bytes"))
            elif self.buffered > READ_AHEAD and not self._paused and not self.complete:
                self._read_enough()
        self._wake()

    def _read_enough(self) -> None:
        if self._lingering is not None:
            self._fail(TooLarge("an answer that goes on behind its end"))
        else:
            self._paused = True
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alive = False
        self._unsent = False
        if self._busy and not self.complete and self.fault is None:
            if exc is None and self._head_done and not self._delimited():
                self.complete = True
            else:
                self.fault = Broken(f"the connection ended early: {exc or 'closed by the upstream'}")
        self._wake()

    def _await_answer(self) -> None:
        self._phase = _FIRST_BYTE
        self.deadline = self._loop.time() + self._timeouts.first_byte

    def _delimited(self) -> bool:
        """Whether the body says itself where it ends."""
        return self.header(b"content-length") is not None or self.header(b"transfer-encoding") is not None

    def _expire(self, phase: Phase, seconds: float) -> None:
        self._fail(TimedOut(phase, seconds))
        self._wake()

    def _fail(self, fault: Fault) -> None:
        if not self.complete and self.fault is None:
            self.fault = fault
        self._keep = False
        self.deadline = self.ends_by = inf
        self.transport.abort()

    def _parsing_ended(self, exc: httptools.HttpParserError) -> None:
        if isinstance(exc.__context__, _Surplus):
            self._keep = False
        else:
            self._fail(Broken(f"not HTTP: {exc}"))

    # --- The parser's side -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Surplus

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # anything less announces the answer, and is none
            self.status = status
            self._head_done = True
            self._unparsed = 0

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self.buffered += len(body)
        self._unparsed = 0

    def on_message_complete(self) -> None:
        if not self._head_done:
            self._headers = []
            return
        self.complete = True
        self._keep = self._parser.should_keep_alive()
        self.deadline = self.ends_by = inf
