"""One request and its reply, as the handlers see them: headers, body, JSON, errors, and the sink of a stream."""

from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from chatport.attempts import Trail
from chatport.delivery import EVENT_STREAM
from chatport.envelopes import API_VERSION
from chatport.policy.keys import Caller
from chatport.telemetry import SHOWN, Access, log_access, new_request_id
from chatport.web.forwarded import peer_name
from chatport.web.turn import CUT_SHORT
from chatport.wire import sse
from chatport.wire.errors import ApiError, BodyTooLarge, InvalidRequest, quote

Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"

NO_CONTENT = 204

CLIENT_LEFT = 499
"""Status in the log of a request whose client did not wait for its reply. Precedent: nginx."""

_encoder = msgspec.json.Encoder()


def by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Values by names; repeated ones joined by commas, as RFC 9110 §5.3 reads them."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = b"%b, %b" % (found[name], value) if name in found else value
    return found


class Exchange:
    """A request being answered. Every reply carries `x-request-id`, and what `extra` holds when its head leaves.

    Also the pipeline's Sink: `head`, `data`, `end`.
    """

    caller: Caller
    """Who sent it; set by the app on routes that need a key."""

    def __init__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.received = time.perf_counter()
        self.id = new_request_id()
        self.client = peer_name(scope["client"], scope["server"])
        """Who asks, for the log: an address, or `unix`. The app knows better behind a proxy."""
        self.method = scope["method"]
        self.raw_path = scope["raw_path"]
        self.query = scope["query_string"]
        self.parameters: tuple[str, ...] = ()
        """What the route's open places matched, percent-decoded."""
        self.creates = False
        """Whether this is a create, whose replies say how long they took, errors too."""
        self.extra: Headers = []
        self.key_id: str | None = None
        self.model: str | None = None
        self.trail = Trail()
        """What the pipeline did to answer."""
        self.status = 0
        """Of the reply whose head has left; 0 before that."""
        self._streams = False
        """The head of an event stream has left, its end has not."""
        self._scope = scope
        self._headers = by_name(scope["headers"])
        self._receive = receive
        self._send = send

    @property
    def cut_short(self) -> bool:
        """Whether the server ends this request; a cancellation says otherwise that the client has left."""
        return CUT_SHORT in (self._scope.get("extensions") or {})

    @property
    def milliseconds(self) -> float:
        """Since the request's head was read."""
        return (time.perf_counter() - self.received) * 1000

    # --- The request -------------------------------------------------------------------------------------------------

    def header(self, name: bytes) -> str | None:
        """A header's value, `name` in lower case."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def json_body(self, limit: int) -> bytes:
        """The body, which must call itself JSON and have at most `limit` bytes. Raises InvalidRequest, BodyTooLarge."""
        content_type = self.header(b"content-type")
        if content_type is None or content_type.partition(";")[0].strip().lower() != "application/json":
            given = "none" if content_type is None else quote(content_type)
            raise InvalidRequest(
                f"Unsupported Content-Type: expected 'application/json', but got {given}.",
                code="unsupported_content_type",
            )
        encoding = self.header(b"content-encoding")
        if encoding is not None and encoding.lower() != "identity":
            raise InvalidRequest(f"Unsupported Content-Encoding: {quote(encoding)}. Send the body as it is.")
        return await self._body(limit)

    async def _body(self, limit: int) -> bytes:
        if int(self.header(b"content-length") or 0) > limit:
            raise BodyTooLarge(limit)
        pieces, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise RuntimeError(f"{message['type']} while a body was read")
            piece, more = message["body"], message["more_body"]
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(limit)
            pieces.append(piece)
        return b"".join(pieces)

    # --- The reply ---------------------------------------------------------------------------------------------------

    async def reply(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """A whole reply. A 204 has no body, and must not say how long that is (RFC 9110 §8.6)."""
        length = [] if status == NO_CONTENT else [(b"content-length", b"%d" % len(body))]
        await self._start(status, [*headers, *length])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def reply_json(self, value: object, status: int = 200) -> None:
        """A whole reply: the value as JSON."""
        await self.reply(status, _encoder.encode(value), [(b"content-type", JSON)])

    async def fail(self, error: ApiError) -> None:
        """The error as the reply, or as the end of the stream that has begun; any other reply stays cut short."""
        if self.status == 0:
            headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
            if self.creates:
                headers += [(b"openai-processing-ms", b"%d" % self.milliseconds), (b"openai-version", API_VERSION)]
            await self.reply(error.status, error.body(), [(b"content-type", JSON), *headers])
        elif self._streams:
            await self.data(sse.error_frame(error))
            await self.end()

    async def head(self, headers: Headers) -> None:
        """Sink: status 200 and these headers."""
        await self._start(200, headers)
        self._streams = (b"content-type", EVENT_STREAM) in headers

    async def whole(self, headers: Headers, body: bytes) -> None:
        """Sink: all of a reply at once."""
        await self._start(200, headers)
        self._streams = (b"content-type", EVENT_STREAM) in headers
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        self._streams = False

    async def data(self, data: bytes) -> None:
        """Sink: one frame of a stream, or the whole body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Sink: nothing follows."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._streams = False

    async def _start(self, status: int, headers: Headers) -> None:
        head = [*headers, (b"x-request-id", self.id.encode()), *self.trail.headers, *self.extra]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        self.status = status

    def log(self, *, cancelled: int | None) -> None:
        """The request's line; `cancelled`: the status that says why, of one that was."""
        log_access(
            Access(
                method=self.method,
                path=self.raw_path[:SHOWN].decode("latin-1"),
                status=cancelled or self.status,
                ms=self.milliseconds,
                request_id=self.id,
                client=self.client,
                key_id=self.key_id,
                model=self.model and self.model[:SHOWN],
                target=self.trail.target,
                attempts=self.trail.attempts,
            )
        )
