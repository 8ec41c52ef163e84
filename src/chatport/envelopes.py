"""What is around an answer: ids, names and times of our own, and the headers of its head."""

from __future__ import annotations

import time

from msgspec import structs

from chatport.attempts import Route
from chatport.delivery import EVENT_STREAM, STREAM_HEADERS, Headers
from chatport.wire.chat import ChatCompletion, ChatRequest
from chatport.wire.stream import Envelope, StreamNormaliser

API_VERSION = b"2020-10-01"
"""`openai-version`, as the original sends it (contract.md §11)."""


REPLAYED = (b"x-chatport-replayed", b"true")
"""On a reply that an Idempotency-Key brought back: it cost nothing."""


def envelope(request_id: str, route: Route) -> Envelope:
    """What every chunk of one answer, or its completion, carries: made here, whatever the backend said. The answer's id
    ends as its request's does, so that either leads to the other."""
    return Envelope(
        "chatcmpl-" + request_id.removeprefix("req_"), int(time.time()), route.model.id, route.target.fingerprint
    )


def stream_grammar(request_id: str, route: Route, request: ChatRequest) -> StreamNormaliser:
    options = request.stream_options
    return StreamNormaliser(
        envelope(request_id, route),
        request.choices,
        include_usage=request.include_usage,
        include_obfuscation=bool(options and options.include_obfuscation),
    )


def in_envelope(answer: ChatCompletion, request_id: str, route: Route) -> ChatCompletion:
    """The backend's completion under our own id, time and names."""
    outer = envelope(request_id, route)
    return structs.replace(
        answer,
        id=outer.id,
        created=outer.created,
        model=outer.model,
        system_fingerprint=outer.system_fingerprint,
        service_tier=outer.service_tier,
    )


def head(received: float, content_type: bytes, route: Route | None) -> Headers:
    """The headers of a successful create (contract.md §11), made at the moment they leave. `received`:
    `time.perf_counter()` when the request's head was read."""
    headers = [
        (b"content-type", content_type),
        (b"openai-processing-ms", b"%d" % ((time.perf_counter() - received) * 1000)),
        (b"openai-version", API_VERSION),
    ]
    if content_type == EVENT_STREAM:
        headers += STREAM_HEADERS
    if route is not None and route.bound.clamped is not None:
        headers.append((b"x-chatport-clamped", b"%d" % route.bound.clamped))
    return headers
