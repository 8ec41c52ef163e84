"""One request and its reply, as the handlers see them: headers, body, JSON, errors, and the sink of a stream."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from chatport.attempts import Trail
from chatport.delivery import EVENT_STREAM
from chatport.envelopes import API_VERSION
from chatport.policy.keys import Caller
from chatport.telemetry import SHOWN, Access, log_access, new_request_id
from chatport.web.turn import Headers, Turn
from chatport.wire import sse
from chatport.wire.errors import ApiError, InvalidRequest, quote

JSON = b"application/json"

CLIENT_LEFT = 499
"""Status in the log of a request whose client did not wait for its reply. Precedent: nginx."""

_encoder = msgspec.json.Encoder()


class Exchange:
    """A request being answered. Every reply carries `x-request-id`, and what `extra` holds when its head leaves.

    Also the pipeline's Sink: `head`, `now`, `data`, `end`, `whole`. What only the turn has to wait for is handed on as
    the turn's coroutine: one of our own would be made for each reply and each frame.
    """

    caller: Caller
    """Who sent it; set by the app on routes that need a key."""

    def __init__(self, turn: Turn) -> None:
        self.received = time.perf_counter()
        self.id = new_request_id()
        self.client = turn.peer
        """Who asks, for the log: an address, or `unix`. The app knows better behind a proxy."""
        self.method = turn.request.method
        self.raw_path = turn.request.path
        self.query = turn.request.query
        self.parameters: tuple[str, ...] = ()
        """What the route's open places matched, percent-decoded."""
        self.creates = False
        """Whether this is a create, whose replies say how long they took, errors too."""
        self.extra: Headers = []
        self.key_id: str | None = None
        self.model: str | None = None
        self.trail = Trail()
        """What the pipeline did to answer."""
        self._streams = False
        """The reply is an event stream."""
        self._turn = turn

    def cut_short(self) -> bool:
        """Whether the server ends this request; a cancellation says otherwise that the client has left."""
        return self._turn.cut

    def milliseconds(self) -> float:
        """Since the request's head was read."""
        return (time.perf_counter() - self.received) * 1000

    # --- The request -------------------------------------------------------------------------------------------------

    def header(self, name: bytes) -> str | None:
        """A header's value, `name` in lower case."""
        value = self._turn.request.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def json_body(self, limit: int) -> Coroutine[Any, Any, bytes]:
        """The body, which must call itself JSON and have at most `limit` bytes. Raises InvalidRequest, BodyTooLarge."""
        headers = self._turn.request.headers
        content_type = headers.get(b"content-type")
        if content_type != JSON and not _is_json(content_type):
            given = "none" if content_type is None else quote(content_type.decode("latin-1"))
            raise InvalidRequest(
                f"Unsupported Content-Type: expected 'application/json', but got {given}.",
                code="unsupported_content_type",
            )
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            given = quote(encoding.decode("latin-1"))
            raise InvalidRequest(f"Unsupported Content-Encoding: {given}. Send the body as it is.")
        return self._turn.body(limit)

    # --- The reply ---------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> Coroutine[Any, Any, None]:
        """A whole reply."""
        return self._turn.reply(status, self._headed(headers), body)

    async def reply_json(self, value: object, status: int = 200) -> None:
        """A whole reply: the value as JSON."""
        await self.reply(status, _encoder.encode(value), [(b"content-type", JSON)])

    async def fail(self, error: ApiError) -> None:
        """The error as the reply, or as the end of the stream that has begun; any other reply stays cut short."""
        if self._turn.status == 0:
            headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in error.headers.items()]
            if self.creates:
                headers += [(b"openai-processing-ms", b"%d" % self.milliseconds()), (b"openai-version", API_VERSION)]
            await self.reply(error.status, error.body(), [(b"content-type", JSON), *headers])
        elif self._streams and not self._turn.complete:
            await self.data(sse.error_frame(error))
            await self.end()

    def head(self, headers: Headers) -> Coroutine[Any, Any, None]:
        """Sink: status 200 and these headers."""
        self._streams = (b"content-type", EVENT_STREAM) in headers
        return self._turn.head(200, self._headed(headers))

    def whole(self, headers: Headers, body: bytes) -> Coroutine[Any, Any, None]:
        """Sink: all of a reply at once."""
        return self.reply(200, body, headers)

    def now(self, data: bytes) -> bool:
        """Sink: one frame of a stream, if the client is there and reads."""
        return self._turn.now(data)

    def data(self, data: bytes) -> Coroutine[Any, Any, None]:
        """Sink: one frame of a stream, or the whole body."""
        return self._turn.data(data)

    def end(self) -> Coroutine[Any, Any, None]:
        """Sink: nothing follows."""
        return self._turn.end()

    def _headed(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """What this reply's head says, beside what every one does."""
        return [*headers, (b"x-request-id", self.id.encode()), *self.trail.headers, *self.extra]

    def log(self, *, cancelled: int | None) -> None:
        """The request's line; `cancelled`: the status that says why, of one that was."""
        log_access(
            Access(
                method=self.method,
                path=self.raw_path[:SHOWN].decode("latin-1"),
                status=cancelled or self._turn.status,
                ms=self.milliseconds(),
                request_id=self.id,
                client=self.client,
                key_id=self.key_id,
                model=self.model and self.model[:SHOWN],
                target=self.trail.target,
                attempts=self.trail.attempts,
            )
        )


def _is_json(content_type: bytes | None) -> bool:
    """Whether this is JSON, in whatever case and with whatever parameters."""
    text = (content_type or b"").decode("latin-1")
    return text.partition(";")[0].strip().lower() == "application/json"
