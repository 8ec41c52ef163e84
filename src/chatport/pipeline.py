"""One request, top to bottom: the only place where policy and backends meet.

    decoded request → the model it names → what that model can't do → an earlier reply to the same Idempotency-Key →
    the limits it falls under → the most it can cost, held in the account → a backend → chunks held to the grammar, and
    to what the account pays for → posted → stored, kept for replay → frames or one JSON body

Everything up to the first real chunk raises, and `web/` makes a clean HTTP error of it; later errors travel in the
stream (`delivery.py`). Cancelling the task that runs `run` is how a client leaves: every stage frees what it holds on
the way out.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct, field, json, structs

from chatport.attempts import Attempts, Journey, Route, Trail, send_on
from chatport.delivery import EVENT_STREAM, JSON, Delivery, Sink, as_api_error
from chatport.envelopes import REPLAYED, head, in_envelope, stream_grammar
from chatport.policy.budgets import Payer
from chatport.policy.keeping import Keeping
from chatport.policy.keys import Caller
from chatport.policy.ledger import Ledger
from chatport.policy.limits import Limits, Subjects, short
from chatport.policy.meter import Meter, Metered
from chatport.policy.replays import LARGEST_REPLY, Replay, Replays
from chatport.policy.strictness import UnknownFields
from chatport.wire import sse
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest
from chatport.wire.stream import Aggregator


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
    stopped: Callable[[], bool] = lambda: False
    """Whether the server itself ends it; a cancellation says otherwise that the client has left."""


class Pace(Struct, frozen=True, kw_only=True):
    """How long a stream may be silent, in seconds."""

    commit_after: float = 20.0
    """Before the first chunk: then the head goes out, and errors can only travel in the stream."""
    keepalive: float = 15.0
    """Between signs of life after that."""


class Stages(Struct, frozen=True, kw_only=True):
    """What a request passes on its way."""

    unknown_fields: UnknownFields
    limits: Limits
    attempts: Attempts
    ledger: Ledger
    keeping: Keeping
    replays: Replays


class Pipeline:
    def __init__(self, stages: Stages, pace: Pace = Pace()) -> None:  # noqa: B008  frozen
        self.unknown_fields = stages.unknown_fields
        self.limits = stages.limits
        self.attempts = stages.attempts
        self.ledger = stages.ledger
        self.keeping = stages.keeping
        self.replays = stages.replays
        self.pace = pace

    async def run(self, call: Call, sink: Sink) -> None:
        """Answers one call into the sink. Raises ApiError (or what `as_api_error` knows) while no head is out."""
        catalog = self.attempts.catalog
        if not catalog.has(call.request.model):
            await catalog.look_for(call.request.model)
        model = catalog.find(call.request, call.caller)
        self.unknown_fields.note(call.caller, call.request)
        meter = Meter(self.ledger, self._metered(call))
        journey = self.attempts.plan(model, call, meter)
        if call.idempotency_key is None:
            await self._answer(call, journey, sink)
            return
        async with self.replays.claim(call.caller.key_id, call.idempotency_key, call.body, time.time()) as claim:
            if claim.replay is not None:
                call.trail.admission = await self.limits.look(subjects(call, model.id), time.monotonic())
                await self._replay(call, claim.replay, sink)
            else:
                meter.kept.claim = claim
                await self._answer(call, journey, sink)

    def _metered(self, call: Call) -> Metered:
        """The call, as far as the account is concerned."""
        request, caller = call.request, call.caller
        return Metered(
            id=call.id,
            payer=Payer(caller.key_id, caller.owner, short(request.safety_identifier or request.user)),
            streamed=bool(request.stream),
            factor_ppm=self.ledger.owners.factor_ppm(caller.owner),
            kept=self.keeping.of(caller, request, call.id, call.body, time.time()),
            stopped=call.stopped,
        )

    async def _answer(self, call: Call, journey: Journey, sink: Sink) -> None:
        if not self.limits.empty:
            call.trail.admission = await self.limits.admit(subjects(call, journey.model.id), time.monotonic())
        try:
            async with journey.meter:
                if call.request.stream:
                    await self._stream(call, journey, sink)
                else:
                    await self._complete(call, journey, sink)
        finally:
            if call.trail.admission is not None:
                await call.trail.admission.end(journey.meter.spent, time.monotonic())

    async def _complete(self, call: Call, journey: Journey, sink: Sink) -> None:
        if self._may_be_cut(journey):
            route, answer = await self._collected(call, journey)
        else:
            route, answer = await self.attempts.complete(journey)
        completion = in_envelope(answer, call.id, route)
        if call.request.store:
            completion = structs.replace(completion, metadata=call.request.metadata)
        body = json.encode(completion)
        journey.meter.kept.answer(completion)
        journey.meter.kept.reply(JSON, body)
        await journey.meter.settle(answer.usage)
        if call.trail.admission is not None:  # so that the head tells of what was used
            await call.trail.admission.correct(journey.meter.spent, time.monotonic())
        await sink.whole(head(call.received, JSON, route), body)

    def _may_be_cut(self, journey: Journey) -> bool:
        """Whether the account may have to end the answer before its time."""
        return not self.ledger.budgets.empty and journey.meter.must_be_cut(model.id for model, _ in journey.places)

    async def _collected(self, call: Call, journey: Journey) -> tuple[Route, ChatCompletion]:
        """The answer as a whole, collected from a stream so that the account can cut it."""
        whole = Aggregator()
        async with self.attempts.stream(journey, lambda route: stream_grammar(call.id, route, call.request)) as answer:
            await send_on(journey.meter, answer, _Collected(whole))
        return answer.route, whole.result(answer.usage)

    async def _stream(self, call: Call, journey: Journey, sink: Sink) -> None:
        delivery = Delivery(
            sink,
            lambda: head(call.received, EVENT_STREAM, journey.route),
            commit_after=self.pace.commit_after,
            keepalive=self.pace.keepalive,
            keep=0 if journey.meter.kept.claim is None else LARGEST_REPLY,
        )
        async with delivery:
            try:
                await self._push(call, journey, delivery)
            except Exception as exc:  # noqa: BLE001  the last chance to tell the client, in whatever form is left
                journey.meter.broke = exc
                await delivery.fail(as_api_error(exc))
            else:
                await delivery.finish(sse.DONE)

    async def _push(self, call: Call, journey: Journey, delivery: Delivery) -> None:
        """The answer, chunk by chunk, held to the grammar; kept with its posting when it is whole, where it is."""
        request, kept = call.request, journey.meter.kept
        whole = Aggregator() if kept.wants_answer else None
        async with self.attempts.stream(journey, lambda route: stream_grammar(call.id, route, request)) as answer:
            await send_on(journey.meter, answer, _Framed(delivery, whole))
        usage = answer.usage  # where the backend has said none, this is no answer to keep
        if whole is not None:
            kept.answer(whole.result(usage))
        if delivery.copy is not None:
            kept.reply(EVENT_STREAM, b"".join([*delivery.copy, sse.DONE]))
        await journey.meter.settle(usage)

    async def _replay(self, call: Call, replay: Replay, sink: Sink) -> None:
        await sink.whole([*head(call.received, replay.content_type.encode(), None), REPLAYED], replay.body)


class _Collected:
    """An outlet: nobody sees the answer before it is whole."""

    def __init__(self, whole: Aggregator) -> None:
        self._whole = whole

    def push(self, chunk: ChatChunk) -> bool:
        self._whole.push(chunk)
        return True

    async def catch_up(self) -> None:
        pass


class _Framed:
    """An outlet: each chunk is a frame to the client. `whole`: where the answer is put together besides."""

    def __init__(self, delivery: Delivery, whole: Aggregator | None) -> None:
        self.catch_up = delivery.catch_up
        self._delivery = delivery
        self._whole = whole

    def push(self, chunk: ChatChunk) -> bool:
        if self._whole is not None:
            self._whole.push(chunk)
        return self._delivery.push(sse.frame(chunk))


def subjects(call: Call, model: str) -> Subjects:
    """The call, as far as limits are concerned."""
    request, caller = call.request, call.caller
    return Subjects(caller.key_id, caller.owner, model, request.safety_identifier or request.user)
