"""One request, top to bottom: the only place where policy and backends meet.

    decoded request → the model it names → what that model can't do → an earlier reply to the same Idempotency-Key →
    the most it can cost → a backend → chunks held to the grammar → frames or one JSON body → stored, kept for replay

Everything up to the first real chunk raises, and `web/` makes a clean HTTP error of it; later errors travel in the
stream (`delivery.py`). Cancelling the task that runs `run` is how a client leaves: every stage is a context that frees
what it holds on the way out.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from secrets import token_hex

from msgspec import Struct, field, json, structs

from chatport.attempts import Attempts, Journey, Route, Trail
from chatport.delivery import EVENT_STREAM, JSON, STREAM_HEADERS, Delivery, Headers, Sink, as_api_error
from chatport.policy.keys import Caller
from chatport.policy.replays import LARGEST_REPLY, Claim, Replay, Replays
from chatport.policy.stored import StoredCompletions
from chatport.policy.strictness import UnknownFields
from chatport.wire import sse
from chatport.wire.chat import ChatCompletion, ChatRequest
from chatport.wire.stream import Aggregator, Envelope, StreamNormaliser

API_VERSION = b"2020-10-01"
"""`openai-version`, as the original sends it (contract.md §11)."""


class Call(Struct, frozen=True, kw_only=True):
    """A request and who sent it, as it comes from the web room."""

    id: str
    """The reply's `x-request-id`."""
    caller: Caller
    request: ChatRequest
    body: bytes
    """As received: what an Idempotency-Key is compared by."""
    idempotency_key: str | None
    received: float
    """`time.perf_counter()` when the head was read."""
    trail: Trail = field(default_factory=Trail)
    """What happens to it, filled in on the way."""


class Pace(Struct, frozen=True, kw_only=True):
    """How long a stream may be silent, in seconds."""

    commit_after: float = 20.0
    """Before the first chunk: then the head goes out, and errors can only travel in the stream."""
    keepalive: float = 15.0
    """Between signs of life after that."""


class Pipeline:
    def __init__(
        self,
        attempts: Attempts,
        replays: Replays,
        stored: StoredCompletions,
        pace: Pace = Pace(),  # noqa: B008  frozen
        unknown_fields: UnknownFields | None = None,
    ) -> None:
        self.attempts = attempts
        self.unknown_fields = unknown_fields or UnknownFields()
        self.replays = replays
        self.stored = stored
        self.pace = pace

    async def run(self, call: Call, sink: Sink) -> None:
        """Answers one call into the sink. Raises ApiError (or what `as_api_error` knows) while no head is out."""
        await self.attempts.catalog.look_for(call.request.model)
        model = self.attempts.catalog.find(call.request, call.caller)
        self.unknown_fields.note(call.caller, call.request)
        journey = self.attempts.plan(model, call)
        if call.idempotency_key is None:
            await self._answer(call, journey, None, sink)
            return
        async with self.replays.claim(call.caller.key_id, call.idempotency_key, call.body, time.time()) as claim:
            if claim.replay is not None:
                await self._replay(call, claim.replay, sink)
            else:
                await self._answer(call, journey, claim, sink)

    async def _answer(self, call: Call, journey: Journey, claim: Claim | None, sink: Sink) -> None:
        if call.request.stream:
            await self._stream(call, journey, claim, sink)
        else:
            await self._complete(call, journey, claim, sink)

    async def _complete(self, call: Call, journey: Journey, claim: Claim | None, sink: Sink) -> None:
        route, answer = await self.attempts.complete(journey)
        completion = in_envelope(answer, envelope(route))
        if call.request.store:
            completion = await self.stored.save(call.caller, completion, call.request)
        body = json.encode(completion)
        if claim is not None:
            await claim.keep(JSON.decode(), body)
        await sink.whole(head(call, JSON, route, length=len(body)), body)

    async def _stream(self, call: Call, journey: Journey, claim: Claim | None, sink: Sink) -> None:
        delivery = Delivery(
            sink,
            lambda: head(call, EVENT_STREAM, journey.route),
            commit_after=self.pace.commit_after,
            keepalive=self.pace.keepalive,
            keep=LARGEST_REPLY if claim is not None else 0,
        )
        async with delivery:
            try:
                await self._push(call, journey, delivery)
                if claim is not None and delivery.copy is not None:
                    await claim.keep(EVENT_STREAM.decode(), b"".join([*delivery.copy, sse.DONE]))
            except Exception as exc:  # noqa: BLE001  the last chance to tell the client, in whatever form is left
                await delivery.fail(as_api_error(exc))
            else:
                await delivery.finish(sse.DONE)

    async def _push(self, call: Call, journey: Journey, delivery: Delivery) -> None:
        """The answer, chunk by chunk, held to the grammar; stored when it is whole, if that was asked for."""
        request = call.request
        whole = Aggregator() if request.store else None
        async with (
            self.attempts.stream(journey, lambda route: stream_grammar(route, request)) as answer,
            aclosing(answer.chunks()) as chunks,
        ):
            async for chunk in chunks:
                if whole is not None:
                    whole.push(chunk)
                await delivery.send(sse.frame(chunk))
        if whole is not None:
            await self.stored.save(call.caller, whole.result(answer.grammar.usage), request)

    async def _replay(self, call: Call, replay: Replay, sink: Sink) -> None:
        content_type = replay.content_type.encode()
        length = len(replay.body) if content_type == JSON else None
        await sink.whole([*head(call, content_type, None, length=length), REPLAYED], replay.body)


REPLAYED = (b"x-chatport-replayed", b"true")
"""On a reply that an Idempotency-Key brought back: it cost nothing."""


def envelope(route: Route) -> Envelope:
    """What every chunk of one answer, or its completion, carries: made here, whatever the backend said."""
    return Envelope(
        id=f"chatcmpl-{token_hex(12)}",
        created=int(time.time()),
        model=route.model.id,
        system_fingerprint=route.target.fingerprint,
    )


def stream_grammar(route: Route, request: ChatRequest) -> StreamNormaliser:
    options = request.stream_options
    return StreamNormaliser(
        envelope(route),
        request.choices,
        include_usage=request.include_usage,
        include_obfuscation=bool(options and options.include_obfuscation),
    )


def in_envelope(answer: ChatCompletion, outer: Envelope) -> ChatCompletion:
    """The backend's completion under our own id, time and names."""
    return structs.replace(
        answer,
        id=outer.id,
        created=outer.created,
        model=outer.model,
        system_fingerprint=outer.system_fingerprint,
        service_tier=outer.service_tier,
    )


def head(call: Call, content_type: bytes, route: Route | None, *, length: int | None = None) -> Headers:
    """The headers of a successful create (contract.md §11); asked for at the moment they leave."""
    headers = [
        (b"content-type", content_type),
        (b"openai-processing-ms", b"%d" % ((time.perf_counter() - call.received) * 1000)),
        (b"openai-version", API_VERSION),
    ]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    if content_type == EVENT_STREAM:
        headers += STREAM_HEADERS
    if route is not None and route.bound.clamped is not None:
        headers.append((b"x-chatport-clamped", b"%d" % route.bound.clamped))
    return headers
