"""One request at as many targets as it takes: the next where one fails, until the first real chunk of an answer.

    the model's targets, in the order of `policy/routing.py` → those of its fallbacks → again, after a short sleep

Each attempt is covered by the account before it is sent.

A client's error ends it at once. What happened is in the `Trail`, for headers and log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

from msgspec import Struct, structs

from chatport.backends.base import Backend, pour
from chatport.policy.catalog import Catalog, Model
from chatport.policy.extras import refuse_unknown, request_for
from chatport.policy.features import refuse_unsupported
from chatport.policy.limits import Admission, need_of
from chatport.policy.meter import Going, Meter
from chatport.policy.routing import Routing, Standing, wait_before
from chatport.targets import Bound, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest, Usage
from chatport.wire.errors import ApiError, InternalError, InvalidRequest, RetryLater, Unavailable, UpstreamFailed
from chatport.wire.stream import CUT_SHORT, NO_USAGE, StreamNormaliser

FULL_RETRY = 1.0
"""Seconds a client is asked to wait when every target has as many requests as it may."""


class Route(Struct, frozen=True):
    """Where one attempt goes: the model that answers, the target, what it is asked, what that can cost at most."""

    model: Model
    target: Target
    backend: Backend
    request: ChatRequest
    bound: Bound


class Asked(Protocol):
    """What is to be answered; a `pipeline.Call` is one."""

    @property
    def request(self) -> ChatRequest: ...
    @property
    def body(self) -> bytes: ...
    @property
    def trail(self) -> Trail: ...


class Trail(Struct):
    """What happened to a request: `target`, the last one asked; `attempts`, how often it was sent."""

    target: str | None = None
    attempts: int = 0
    fallback: str | None = None
    """The model that answered in place of the one that was asked for."""
    admission: Admission | None = None
    """Its part of the limits; None before it is admitted."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What a reply says of it: the limits, and the target where that is not inside of this server."""
        told: list[tuple[bytes, bytes]] = []
        if self.admission is not None:
            limits = self.admission.headers(time.monotonic())
            told = [(name.encode(), value.encode()) for name, value in limits.items()]
        if self.target is not None:
            told += [(b"x-chatport-target", self.target.encode()), (b"x-chatport-attempts", b"%d" % self.attempts)]
        if self.fallback is not None:
            told.append((b"x-chatport-fallback", self.fallback.encode()))
        return told


Place = tuple[Model, Target]
"""A target, and the model that it answers for: not always the one that was asked for."""


class Journey(Struct):
    """A request on its way: where it may still go, and what it has met so far."""

    model: Model
    places: list[Place]
    """Of this round, best first."""
    call: Asked
    meter: Meter
    """Its part of the account."""
    began: float
    again: list[Place] = []
    """Of the next round: where what failed may pass."""
    route: Route | None = None
    """The one that is being asked now."""
    rounds: int = 0
    slept: float = 0.0
    error: ApiError | None = None
    """What the client hears when nothing comes of it: the latest failure, one that may pass before any other."""

    def met(self, place: Place, error: ApiError) -> None:
        """An attempt came to nothing; another may do better."""
        if error.transient:
            self.again.append(place)
        if isinstance(error, RetryLater) or not isinstance(self.error, RetryLater):
            self.error = error


class Answer(Struct, frozen=True):
    """A streamed answer whose first real chunk is there: from here on no other target can take over."""

    route: Route
    grammar: StreamNormaliser
    first: list[ChatChunk]
    rest: AsyncIterator[ChatChunk]

    @property
    def usage(self) -> Usage:
        """What it used, once it has ended. Raises InternalError where the backend has not said it."""
        if self.grammar.usage is None:
            raise InternalError(NO_USAGE)
        return self.grammar.usage


class Attempts:
    """Sends requests to targets until one answers."""

    def __init__(
        self,
        catalog: Catalog,
        backends: Mapping[str, Backend],
        routing: Routing,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.catalog = catalog
        self._backends = backends
        self._routing = routing
        self._clock = clock
        self._sleep = sleep

    def plan(self, model: Model, call: Asked, meter: Meter) -> Journey:
        """Where the request may go. Raises what refuses it, when no target can honour all of it."""
        now = self._clock()
        places = self._able(model, call.request, now)
        for name in model.fallbacks:
            fallback = self.catalog.by_id(name)
            with suppress(InvalidRequest):
                places += self._able(fallback, call.request, now)
        return Journey(model, places, call, meter, now)

    def _able(self, model: Model, request: ChatRequest, now: float) -> list[Place]:
        """The model's targets that can honour the request, best first. Raises the first refusal when none can."""
        able: list[Place] = []
        refusal: InvalidRequest | None = None
        for target in self._routing.order(model.targets, now):
            try:
                refuse_unsupported(request, target)
                refuse_unknown(request, target)
            except InvalidRequest as exc:
                refusal = refusal or exc
            else:
                able.append((model, target))
        if refusal is not None and not able:
            raise refusal
        return able

    async def complete(self, journey: Journey) -> tuple[Route, ChatCompletion]:
        """The whole answer of the first target that gives one, and which that was."""
        while True:
            route = await self._covered(journey, await self._next(journey))
            standing = self._routing.standing(route.target)
            probes = standing.enter()
            try:
                answer = await route.backend.complete(route.target, route.request, route.bound)
            except ApiError as error:
                self._failed(journey, route, standing, error)
            else:
                standing.succeeded()
                return route, answer
            finally:
                standing.leave(probes)

    @asynccontextmanager
    async def stream(self, journey: Journey, grammar_of: Callable[[Route], StreamNormaliser]) -> AsyncIterator[Answer]:
        """The answer of the first target that begins one. What breaks after its first real chunk is raised."""
        while True:
            route = await self._covered(journey, await self._next(journey))
            standing = self._routing.standing(route.target)
            async with AsyncExitStack() as held:
                held.callback(standing.leave, standing.enter())
                try:
                    chunks = await held.enter_async_context(
                        route.backend.stream(route.target, route.request, route.bound)
                    )
                    grammar = grammar_of(route)
                    first = await first_chunks(grammar, chunks)
                except ApiError as error:
                    self._failed(journey, route, standing, error)
                    continue
                standing.succeeded()
                try:
                    yield Answer(route, grammar, first, chunks)
                except ApiError as error:
                    standing.failed(error, self._clock())
                    raise
                return

    async def _next(self, journey: Journey) -> Route:
        """The way to the next place that can be asked now. Raises the journey's error when there is none any more."""
        call, trail = journey.call, journey.call.trail
        while True:
            while journey.places:
                place = model, target = journey.places.pop(0)
                if self._routing.is_full(target):
                    journey.met(place, Unavailable("The model has as many requests as it may.", retry_after=FULL_RETRY))
                    continue
                backend = self._backends[target.backend]
                request = request_for(target, call.request, call.body)
                try:
                    bound = await backend.bound(target, request)
                    if trail.admission is not None:
                        joining = None if model is journey.model else model.id
                        await trail.admission.join(joining, need_of(bound), time.monotonic())
                except ApiError as error:
                    journey.met(place, error)
                    continue
                trail.attempts += 1
                if target.remote:
                    trail.target = target.id
                    trail.fallback = model.id if model is not journey.model else None
                return Route(model, target, backend, request, bound)
            await self._next_round(journey)

    async def _covered(self, journey: Journey, route: Route) -> Route:
        """The route, when limits and account have room for it; asked for less where less is what the account can pay
        for. Raises what they say no with."""
        admission = journey.call.trail.admission
        if admission is not None:
            await admission.charge(need_of(route.bound), time.monotonic())
        going = Going(
            model=route.model.id,
            target=route.target.id,
            bound=route.bound,
            choices=route.request.choices,
            attempt=journey.call.trail.attempts,
            listed=route.target.listed,
        )
        output = await journey.meter.cover(going)
        if output is not None:
            each = output // route.request.choices
            request = structs.replace(route.request, max_completion_tokens=each, max_tokens=None)
            bound = structs.replace(await route.backend.bound(route.target, request), clamped=each)
            route = structs.replace(route, request=request, bound=bound)
        journey.route = route
        return route

    async def _next_round(self, journey: Journey) -> None:
        """Everything was tried: sleeps, and tries again what may pass. Raises the journey's error otherwise."""
        model, now = journey.model, self._clock()
        error = journey.error or Unavailable("No upstream of this model is available.", retry_after=FULL_RETRY)
        journey.rounds += 1
        wait = wait_before(error, journey.rounds, journey.slept, self._routing.draw())
        if not journey.again or wait is None or journey.call.trail.attempts >= model.attempts:
            raise error
        if now + wait - journey.began > model.deadline:
            raise error
        await self._sleep(wait)
        journey.slept += wait
        # Those left over of this round are no longer asked: they can't be used as they are.
        room = model.attempts - journey.call.trail.attempts
        journey.places, journey.again = journey.again[:room], []

    def _failed(self, journey: Journey, route: Route, standing: Standing, error: ApiError) -> None:
        """Notes a failure. Raises it when it is the client's."""
        standing.failed(error, self._clock())
        journey.meter.failed(error)
        if isinstance(error, InvalidRequest):
            raise error
        journey.met((route.model, route.target), error)


async def first_chunks(grammar: StreamNormaliser, chunks: AsyncIterator[ChatChunk]) -> list[ChatChunk]:
    """What a client may see of the first chunk that says something: a role alone is nothing yet."""
    async for raw in chunks:
        if said := grammar.push(raw):
            return said
    raise UpstreamFailed(CUT_SHORT)


class Outlet(Protocol):
    """Where the chunks of an answer go."""

    def push(self, chunk: ChatChunk) -> bool:
        """Takes a chunk, perhaps from outside of the request's task. False: `catch_up` must be awaited before more."""
        ...

    async def catch_up(self) -> None: ...


async def send_on(meter: Meter, answer: Answer, outlet: Outlet) -> None:
    """The answer, as a client may see it and as far as the account pays for it. What becomes of a chunk of the
    backend's is counted before anybody sees it, and sent on as a whole: it was made, and no choice's end may be lost;
    what is not yet made is covered first. Raises ApiError when it breaks."""
    flow = _Flow(meter, answer.grammar, outlet)
    flow.tell(answer.first)
    while await flow.goes_on():
        if not await pour(answer.rest, flow.take):
            flow.tell(answer.grammar.finish())
            break
    if meter.cut:
        for chunk in answer.grammar.cut(meter.used):
            outlet.push(chunk)
    await outlet.catch_up()


class _Flow:
    """What happens to each chunk of an answer where it arrives, and what must be waited for in between."""

    def __init__(self, meter: Meter, grammar: StreamNormaliser, outlet: Outlet) -> None:
        self._meter = meter
        self._grammar = grammar
        self._outlet = outlet
        self._short = False
        """The account must pay for more."""
        self._late = False
        """The outlet must catch up."""

    def take(self, raw: ChatChunk) -> bool:
        """A chunk of the backend's. False: see `goes_on` before the next."""
        return self.tell(self._grammar.push(raw))

    def tell(self, chunks: list[ChatChunk]) -> bool:
        for chunk in chunks:
            if self._meter.observe(chunk):
                self._short = True
        for chunk in chunks:
            if not self._outlet.push(chunk):
                self._late = True
        return not (self._short or self._late)

    async def goes_on(self) -> bool:
        """Waits for what has to be waited for; whether there may be more."""
        if self._late:
            self._late = False
            await self._outlet.catch_up()
        if not self._short:
            return True
        self._short = False
        return self._grammar.ended or await self._meter.extend()
