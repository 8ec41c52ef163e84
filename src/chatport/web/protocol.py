"""A connection: HTTP/1.1 in and out, on uvicorn's HttpToolsProtocol.

uvicorn brings the socket, the parser (llhttp, in its strict mode) and the server around them. This subclass brings
what a port that is open to anybody needs:

- Limits on the size of a head, on the time for head and body, on idle connections, on their number. The times are
  looked at by one sweep over all connections twice a second (`server.py`) instead of by timers of each request.
- Bad HTTP gets its 400 with the error object, in its turn: behind the replies to the requests that came before it.
- Reading never pauses, so that the client's leaving is seen at once in every phase. What arrives ahead of its turn is
  bounded by `read_ahead_bytes` and `MAX_WAITING` instead: beyond that the connection ends after the turns it has.
- A connection that is ended while the client may still be sending is shut on our side only, and read on for a while:
  a full close would make the kernel send a reset, which can take our reply with it (RFC 9112 §9.6).

The client's FIN counts as its leaving: it can't be told from a half-close, and generating for nobody is the worse
mistake. Slow heads and bodies get a 400: the contract has no row for 408.

Anything wrong is raised as an ApiError inside the parser's callbacks: that stops the parser where it stands, and
nothing behind it is ever taken for a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import Enum, auto
from math import inf
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from chatport.telemetry import Access, log_access, new_request_id
from chatport.web.forwarded import peer_name
from chatport.web.limits import HTTPConfig
from chatport.web.turn import Request, Turn, response_head, stopping
from chatport.wire.errors import ApiError, BodyTooLarge, InternalError, InvalidRequest, Unavailable, quote

MAX_HEADERS = 128
"""Header lines a request may have, trailers included. Precedent: Apache 100; SDKs send about 20."""

MAX_WAITING = 16
"""Requests that may wait on one connection behind the one being answered (pipelining)."""

SURPLUS = 64
"""Connections above `max_connections` that still get a reply, a 503; beyond them they are closed unheard."""

SURPLUS_RETRY = 1.0
"""Seconds a client above `max_connections` is asked to wait."""

UPGRADING = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""Headers by which a client asks for another protocol."""

HASH = ord("#")
"""A number, for the reason told in `turn.py`."""

STALL_BYTES = 16 * 1024
"""What a client must take of a waiting reply within `stall_seconds`: some 270 bytes a second."""

log = logging.getLogger("chatport")


class Reading(Enum):
    """What the next byte will belong to."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


NOTHING, HEAD, BODY = Reading
# Bound once: `Reading.BODY` is a look-up through the class of all enums, and each header line asks.


class Connection(HttpToolsProtocol):
    """One client's connection. Requests are answered in the order they came in, one at a time."""

    def __init__(
        self,
        config: HTTPConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn lets bytes that follow `connection: close` pass; here, without leniencies, they end the parsing.
        self.parser = httptools.HttpRequestParser(self)
        self.application = config.application
        self.limits = config.limits
        self.drain_bytes = config.limits.drain_bytes
        self.deadline = inf
        """Loop time at which the client has been waited for long enough."""
        self._reading = NOTHING
        self._deaf = False
        """Whatever else arrives is thrown away unread."""
        self._last = False
        """No further request is taken."""
        self._surplus = False
        self._running: Turn | None = None
        self._waiting: deque[Turn] = deque()
        self._incoming: Turn | None = None
        """The turn whose body is arriving."""
        self._refusal: ApiError | None = None
        """What is said, after the turns before it, of bytes that were no request."""
        self._unsent = 0
        """Bytes that waited for the client when it last took some."""
        self._moved_at = 0.0
        self._head_left = 0
        """Bytes that the head may still have."""
        self._lines_left = 0
        """Header lines that it may."""
        self._unparsed = 0
        """Bytes since the parser last got somewhere: one endless header, or chunk extension, ends here."""
        self._drained = 0
        self._upgrading = False
        self._method = b""
        self._headers: dict[bytes, bytes] = {}
        self.peer: str | None = None

    # --- The transport's side ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = peer_name(self.client, self.server)
        surplus = len(self.connections) - self.limits.max_connections
        self._surplus = surplus > 0
        if surplus > SURPLUS:
            transport.abort()
        self._wait(self.limits.header_seconds if self._surplus else self.limits.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._client_left()
        self.flow.resume_writing()

    def eof_received(self) -> None:
        """The client has left. What is written already still goes out; then the transport closes itself."""
        self._client_left()
        self._wait(self.limits.stall_seconds)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            self._parsing_ended(exc)
        else:
            if self._unparsed > self.limits.max_header_bytes:
                self._refuse(self._head_too_large())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent, self._moved_at = self.transport.get_write_buffer_size(), self.loop.time()

    # --- The parser's side -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._last:
            raise stopping()
        if len(self._waiting) >= MAX_WAITING:
            raise InvalidRequest(f"More than {MAX_WAITING} requests wait for their turn on this connection.")
        self._reading = HEAD
        self._wait(self.limits.header_seconds)
        self.url = b""
        self._headers = {}
        self._head_left, self._lines_left, self._unparsed = self.limits.max_header_bytes, MAX_HEADERS, 0

    def on_url(self, url: bytes) -> None:
        self._unparsed = 0
        self._head_left -= len(url)
        if self._head_left < 0:
            raise self._head_too_large()
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unparsed = 0
        self._head_left -= len(name) + len(value) + 4
        self._lines_left -= 1
        if self._head_left < 0 or self._lines_left < 0:
            raise self._head_too_large()
        if self._reading is BODY:
            return  # a trailer: counted, but nothing that is decided already may hang on it
        name, value = name.lower(), value.rstrip(b" \t")
        if name in self._headers:
            if name == b"host":
                raise InvalidRequest("Invalid HTTP request: more than one Host header.")
            value = b"%b, %b" % (self._headers[name], value)
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._method = self.parser.get_method()
        if self.parser.should_upgrade() and self._method != b"CONNECT":
            self._upgrading = True
            return
        if self._surplus:
            raise Unavailable("Too many connections to this server.", retry_after=SURPLUS_RETRY)
        turn = Turn(self, self._read_head())
        self._reading = BODY
        self._wait(self.limits.body_seconds)
        self._incoming = turn
        self._drained = self._unparsed = 0
        if self._running is None:
            self._start(turn)
        else:
            self._waiting.append(turn)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        turn = self._incoming
        if turn is None:
            return
        turn.take(body)
        if turn.complete:
            self._drained += len(body)
            if self._drained > self.limits.drain_bytes:
                raise InvalidRequest("The rest of a refused request is too long.")
        elif turn.buffered > self.limits.max_body_bytes:
            raise BodyTooLarge(self.limits.max_body_bytes)
        elif turn is not self._running and turn.buffered > self.limits.read_ahead_bytes:
            raise InvalidRequest(
                f"Only {self.limits.read_ahead_bytes} bytes of a body may arrive before the request's turn has come."
            )

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._unparsed = 0
        self._reading = NOTHING
        turn, self._incoming = self._incoming, None
        if turn is not None:
            turn.body_ended()
        if self._running is None:
            self._wait(self.limits.idle_seconds)
        else:
            self.deadline = inf

    def _head_too_large(self) -> ApiError:
        if self._lines_left < 0:
            return InvalidRequest(f"Invalid HTTP request: more than {MAX_HEADERS} header lines.")
        return InvalidRequest(f"Invalid HTTP request: its head is over {self.limits.max_header_bytes} bytes.")

    def _read_head(self) -> Request:
        """The head that is whole. Raises InvalidRequest for what the parser lets pass and we don't."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise InvalidRequest(f"Invalid HTTP request: version {version}. HTTP/1.1 and 1.0 are spoken here.")
        method = self._method.decode()
        path, query = request_target(self.url, method)
        length, awaits_continue = body_framing(self._headers, version)
        keep_alive = version == "1.1" and self.parser.should_keep_alive()
        return Request(method, path, query, self._headers, version, keep_alive, length, awaits_continue)

    # --- Turns -------------------------------------------------------------------------------------------------------

    def _start(self, turn: Turn) -> None:
        self._running = turn
        turn.start(self.application)

    def turn_over(self, turn: Turn) -> None:
        """The reply is whole: the next turn, the refusal that waits, the end, or silence."""
        self._running = None
        if self.transport.is_closing():
            return
        if not turn.keep_alive:
            self._end()
        elif self._waiting:
            self._start(self._waiting.popleft())
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._reading is NOTHING:
            self._wait(self.limits.idle_seconds)

    def _parsing_ended(self, exc: httptools.HttpParserError) -> None:
        """Bad HTTP, or an error of ours out of a callback."""
        cause = exc.__context__
        if isinstance(cause, ApiError):
            self._refuse(cause)
        elif isinstance(exc, httptools.HttpParserCallbackError):
            log.error("a request could not be read", exc_info=cause)
            self._refuse(InternalError())
        else:
            self._refuse(InvalidRequest(f"Invalid HTTP request: {exc}."))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Answers as if the client had not asked.

        Java's HttpClient asks for h2c with every first request, POSTs too, and llhttp takes their bodies for the other
        protocol's: so a fresh parser is told the same head without the question.
        """
        version = self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        self._upgrading = False
        asked = self._headers.get(b"connection", b"").lower()
        kept = {name: value for name, value in self._headers.items() if name not in UPGRADING}
        if b"close" in asked:
            kept[b"connection"] = b"close"
        lines = [b"%b: %b\r\n" % header for header in kept.items()]
        first = b"%b %b HTTP/%b\r\n" % (self._method, self.url, version)
        self.data_received(b"".join([first, *lines, b"\r\n", rest]))

    def _refuse(self, error: ApiError) -> None:
        """Nothing more can be read here. The error goes to the turn whose body was arriving, or out on its own."""
        self._deaf = True
        self._wait(inf)
        if self._incoming is None:
            self._refusal = error
            if self._running is None:
                self._send_refusal(error)
        elif self._incoming.complete:
            self._end()
        else:
            self._incoming.break_off(error)

    def _send_refusal(self, error: ApiError) -> None:
        body, request_id = error.body(), new_request_id()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        self.transport.write(response_head(error.status, headers) + body)
        log_access(Access(method="-", path="-", status=error.status, ms=0.0, request_id=request_id, client=self.peer))
        self._deaf = True
        self._end()

    def _end(self) -> None:
        """Closes. While the client may still be sending, only our side of it: see above."""
        quiet = self._reading is NOTHING and not self._deaf
        self._deaf = self._last = True
        self._reading = NOTHING
        if quiet or not self.transport.can_write_eof():
            self.transport.close()
            self._wait(self.limits.stall_seconds)
        else:
            self.transport.write_eof()
            self._wait(self.limits.linger_seconds)

    def _client_left(self) -> None:
        self._deaf = self._last = True
        turn, self._running = self._running, None
        if turn is not None:
            turn.client_left()

    # --- The server's side -------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server ends: what is being answered is answered, nothing else is begun."""
        self._last = True
        self._waiting.clear()
        if self._running is None:
            self._deaf = True
            self.transport.close()
            return
        self._running.keep_alive = False
        if self._incoming is not self._running:
            self._deaf = True

    def cut_short(self) -> None:
        """The time for running requests is over: the one here is told so, then the connection ends by itself."""
        if self._running is not None:
            self._running.cut_short()

    def sweep(self, now: float) -> None:
        """Ends what has been waited for too long. `now`: loop time."""
        if not self.flow.write_paused:
            if now > self.deadline:
                self._overdue()
            return
        unsent = self.transport.get_write_buffer_size()
        if unsent <= self._unsent - STALL_BYTES:
            self._unsent, self._moved_at = unsent, now
        elif now - self._moved_at > self.limits.stall_seconds:
            self.transport.abort()

    def _overdue(self) -> None:
        self.deadline = inf
        if self.transport.is_closing() or self._last:
            self.transport.abort()
        elif self._reading is HEAD:
            self._refuse(InvalidRequest(f"The request's head took over {self.limits.header_seconds:g} s to arrive."))
        elif self._reading is BODY:
            self._refuse(InvalidRequest(f"The request's body took over {self.limits.body_seconds:g} s to arrive."))
        else:
            self.transport.close()

    def _wait(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds


def request_target(url: bytes, method: str) -> tuple[bytes, bytes]:
    """Path, still percent-encoded, and query of a request line. Raises InvalidRequest where there is no path."""
    if method == "CONNECT":
        raise InvalidRequest("Invalid HTTP request: this server is no proxy.")
    if url.startswith(b"/") and HASH not in url:
        path, _, query = url.partition(b"?")
        return path, query
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError as exc:
        raise InvalidRequest(f"Invalid HTTP request: {quote(url.decode('latin-1'))} is no path.") from exc
    return parsed.path or b"/", parsed.query or b""


def body_framing(headers: dict[bytes, bytes], version: str) -> tuple[int | None, bool]:
    """Length of the body (None: chunked), and whether the client waits for a 100.

    Raises InvalidRequest for what two programs might read differently. llhttp has refused already: a repeated
    Content-Length, one beside a Transfer-Encoding, codings after `chunked`.
    """
    if version == "1.1" and b"host" not in headers:
        raise InvalidRequest("Invalid HTTP request: the Host header is missing.")
    expected = headers.get(b"expect")
    continues = expected is not None and version == "1.1" and b"100-continue" in expected.lower()
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return int(headers.get(b"content-length", 0)), continues
    if coding.lower() != b"chunked" or version == "1.0":
        given = quote(coding.decode("latin-1"))
        raise InvalidRequest(f"Invalid HTTP request: Transfer-Encoding {given}. Only 'chunked' in HTTP/1.1.")
    return None, continues
