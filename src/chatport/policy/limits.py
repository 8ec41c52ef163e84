"""How much a caller may ask for: requests and tokens in a minute, an hour, a day, and requests at the same time.

A limit belongs to a key, an owner, a model, or each end user of a key; those of the configuration and those of the
database all hold. A request is charged when it is admitted, its tokens when it is known what they can be at most, and
that is corrected when it is known what they were. Where a limit refuses a request, nothing of it stays charged.

A limit that only reports refuses nobody and says nothing to clients; what it would have refused is counted, and is not
charged to it, just as it would not have been.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, floor, inf
from typing import Final, Literal, TypeAlias

from msgspec import Struct, structs

from chatport.counters.buckets import CRUMB, Bucket
from chatport.counters.contract import Counters, Draw, Refused, Rule, Taken
from chatport.store.limits import Kind, Limit, LimitRows, Mode
from chatport.targets import Bound
from chatport.wire.errors import RateLimited, quote
from chatport.wire.tally import BYTES_PER_TOKEN

PLACE_RETRY = 1.0
"""Seconds a client is asked to wait for a place: nobody knows how long those will run that have one."""

LOG_EVERY = 60.0
"""Seconds between two lines in the log about the same limit that only reports."""

MOST_RESOLVED = 10_000
"""Subjects whose rules are remembered as they were found."""

LONGEST_NAME = 64
"""Characters of an end user that a bucket's name repeats; of a longer one it holds the digest."""

EACH: Final = "*"
"""The subject of a limit, or the end user of a budget, for each one that has none of its own."""

log = logging.getLogger("chatport")

Unit: TypeAlias = Literal["requests", "tokens", "places"]
Source: TypeAlias = Literal["file", "kept"]


class Term(Struct, frozen=True):
    """One kind of rule: what it counts, in how many seconds, and how a message calls it."""

    unit: Unit
    period: float | None
    words: str


TERMS: Final = {
    "rpm": Term("requests", 60.0, "Requests per minute"),
    "rph": Term("requests", 3600.0, "Requests per hour"),
    "rpd": Term("requests", 86_400.0, "Requests per day"),
    "tpm": Term("tokens", 60.0, "Tokens per minute"),
    "tph": Term("tokens", 3600.0, "Tokens per hour"),
    "tpd": Term("tokens", 86_400.0, "Tokens per day"),
    "concurrency": Term("places", None, "Requests at the same time"),
}
"""By the names that `Rules` gives them."""


class Subjects(Struct, frozen=True):
    """Whose limits a request falls under. `model`: the catalog's id; `end_user`: as the request names one."""

    key_id: str
    owner: str | None
    model: str
    end_user: str | None


class Reported(Struct, frozen=True, kw_only=True):
    """A limit that only reports, and how many requests it would have refused since the server started."""

    scope: str
    limit: str
    count: int


class Standing(Struct, frozen=True, kw_only=True):
    """How one rule is for one subject at a moment."""

    scope: str
    limit: str
    mode: Mode
    amount: int
    used: int
    reset_seconds: float | None
    """Until all of it is there again; None for requests at the same time, which nobody can tell of."""


class Part(Struct, frozen=True):
    """One rule for one subject, ready to be drawn from: one of a request's parts of its limits."""

    name: str
    """As `Rules` calls it."""
    unit: Unit
    scope: str
    """Of the limit it is from."""
    whose: str
    draw: Draw
    """Of what admission takes: one request, one place, no tokens."""

    @property
    def term(self) -> Term:
        return TERMS[self.name]

    def drawing(self, cost: float) -> Draw:
        return Draw(self.draw.name, self.draw.rule, cost, self.draw.enforced)


class Plan(Struct, frozen=True):
    """All rules of a request, sorted once for all requests of the same subjects. The last three are indexes."""

    parts: tuple[Part, ...]
    draws: tuple[Draw, ...]
    requests: tuple[int, ...]
    places: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Plan:
        parts = tuple(parts)
        units: dict[Unit, list[int]] = {"requests": [], "places": [], "tokens": []}
        for index, part in enumerate(parts):
            units[part.unit].append(index)
        draws = tuple(part.draw for part in parts)
        return cls(parts, draws, tuple(units["requests"]), tuple(units["places"]), tuple(units["tokens"]))


class Limits:
    """Every limit in force; without rows, those of the configuration alone. `load` may raise StoreUnavailable; nothing
    else does, with counters in the process."""

    def __init__(self, counters: Counters, rows: LimitRows | None = None) -> None:
        self._counters = counters
        self._rows = rows
        self.empty = True
        """Nobody has any."""
        self._by_source: dict[Source, tuple[Limit, ...]] = {"file": (), "kept": ()}
        self._found: dict[tuple[Kind, str], list[tuple[Source, Limit]]] = {}
        self._resolved: dict[tuple[str, str | None, str], Plan] = {}
        self._loading = asyncio.Lock()
        self._unlimited = Admission(self, Plan.of(()), ())
        self._reports: dict[tuple[str, str], _Report] = {}

    def configure(self, limits: Iterable[Limit]) -> None:
        """These of the configuration are in force from now on, and no others of it."""
        self._take("file", limits)

    async def load(self) -> None:
        """Takes the database's limits into memory. One at a time, as with keys."""
        if self._rows is None:
            return
        async with self._loading:
            self._take("kept", await self._rows.all())

    async def admit(self, who: Subjects, now: float) -> Admission:
        """Charges one request, and a place until the admission is released. `now`: seconds of a clock that does not go
        back. Raises RateLimited, and then nothing is charged."""
        if self.empty:
            return self._unlimited
        plan = self._plan(who)
        found = await self._take_all(plan, who.key_id, now)
        return Admission(self, plan, found.buckets, found.skipped, who)

    async def admit_also(self, admission: Admission, model: str, tokens: int, now: float) -> None:
        """Charges a request for another model that is to answer it, and the tokens that it can need: for those of that
        one's limits that it has not met yet. Raises RateLimited, and then nothing of them is charged."""
        if self.empty or admission.who is None:
            return
        met = {part.draw.name for part in admission.parts}
        wanted = self._plan(structs.replace(admission.who, model=model)).parts
        plan = Plan.of(
            structs.replace(part, draw=part.drawing(tokens)) if part.unit == "tokens" else part
            for part in wanted
            if part.draw.name not in met
        )
        for part in plan.parts:
            if part.unit == "tokens" and part.draw.enforced and tokens > part.draw.rule.amount:
                raise too_large(part, tokens)
        found = await self._take_all(plan, admission.who.key_id, now)
        admission.add(plan, found.buckets, found.skipped, tokens)

    async def _take_all(self, plan: Plan, key_id: str, now: float) -> Taken:
        found = await self._counters.take(plan.draws, now)
        if isinstance(found, Refused):
            told = headers_of(plan.parts, found.buckets, now)
            refused = plan.parts[found.draw]
            raise refusal(refused, found.buckets[found.draw], refused.draw.cost, found.wait, told)
        if found.skipped:
            self.report([plan.parts[index] for index in found.skipped], key_id, now)
        return found

    async def look(self, who: Subjects, now: float) -> Admission:
        """An admission that took nothing, to tell of the limits: of a request that costs nothing."""
        if self.empty:
            return self._unlimited
        plan = self._plan(who)
        return Admission(self, plan, await self._counters.peek(plan.draws, now), range(len(plan.parts)))

    async def standing(self, who: Subjects, now: float) -> list[Standing]:
        """How all the rules are that a request of these subjects would fall under."""
        plan = self._plan(who)
        buckets = await self._counters.peek(plan.draws, now)
        return [
            Standing(
                scope=part.scope,
                limit=part.name,
                mode="enforce" if part.draw.enforced else "report",
                amount=part.draw.rule.amount,
                used=shown(bucket.used),
                reset_seconds=None if part.draw.rule.period is None else bucket.used / part.draw.rule.rate,
            )
            for part, bucket in zip(plan.parts, buckets, strict=True)
        ]

    def reported(self) -> list[Reported]:
        """What those that only report would have refused, by scope and limit."""
        return [
            Reported(scope=scope, limit=name, count=report.count)
            for (scope, name), report in sorted(self._reports.items())
        ]

    @property
    def counters(self) -> Counters:
        return self._counters

    def report(self, parts: Iterable[Part], key_id: str, now: float) -> None:
        """Counts a request that these would have refused, and logs each of them now and then."""
        for part in parts:
            report = self._reports.setdefault((part.scope, part.name), _Report())
            report.count += 1
            if now >= report.logged_at + LOG_EVERY:
                report.logged_at = now
                log.warning(
                    "the limit %s of %s would have refused a request of key %s: %d so far",
                    part.name,
                    part.scope,
                    key_id,
                    report.count,
                )

    def _take(self, source: Source, limits: Iterable[Limit]) -> None:
        self._by_source[source] = tuple(limits)
        self._found = {}
        for origin, each in self._by_source.items():
            for limit in each:
                self._found.setdefault((limit.kind, limit.subject), []).append((origin, limit))
        self.empty = not self._found
        self._resolved = {}

    def _plan(self, who: Subjects) -> Plan:
        """All rules that a request falls under."""
        place = (who.key_id, who.owner, who.model)
        lasting = self._resolved.get(place)
        if lasting is None:
            lasting = Plan.of(self._lasting(who))
            if len(self._resolved) >= MOST_RESOLVED:
                self._resolved.clear()
            self._resolved[place] = lasting
        if not who.end_user:
            return lasting
        subject = f"{who.key_id}/{short(who.end_user)}"
        own = tuple(self._parts_of("user", who.key_id, subject, f"of the end user {quote(who.end_user)}"))
        return Plan.of((*lasting.parts, *own)) if own else lasting

    def _lasting(self, who: Subjects) -> Iterable[Part]:
        yield from self._parts_of("key", who.key_id, who.key_id, "of this API key")
        if who.owner is not None:
            yield from self._parts_of("owner", who.owner, who.owner, f"of the owner {quote(who.owner)}")
        yield from self._parts_of("model", who.model, who.model, f"of the model {quote(who.model)}")

    def _parts_of(self, kind: Kind, looked_up: str, subject: str, whose: str) -> Iterable[Part]:
        """The rules of one subject: its own, or those for each that has none. `subject`: as its buckets are named."""
        found = next((found for name in names(kind, looked_up) if (found := self._found.get((kind, name)))), ())
        for source, limit in found:
            for name, term in TERMS.items():
                amount = getattr(limit.rules, name)
                if amount is not None:
                    bucket = f"{source}/{kind}/{name}/{subject}"
                    cost = 0 if term.unit == "tokens" else 1
                    draw = Draw(bucket, Rule(amount, term.period), cost, limit.mode == "enforce")
                    yield Part(name, term.unit, limit.scope, whose, draw)


class Admission:
    """One request's part of its limits. Whatever becomes of the request, `end` must follow."""

    __slots__ = ("_buckets", "_held", "_joined", "_limits", "_own", "_places", "_requests", "parts", "who")

    def __init__(
        self,
        limits: Limits,
        plan: Plan,
        buckets: Sequence[Bucket],
        skipped: Sequence[int] = (),
        who: Subjects | None = None,
    ) -> None:
        self.who = who
        self.parts: tuple[Part, ...] = ()
        self._limits = limits
        self._buckets: list[Bucket] = []
        """As they were when this request last drew from them."""
        self._requests: tuple[int, ...] = ()
        self._places: tuple[int, ...] = ()
        self._held: dict[int, int] = {}
        """Tokens that are charged to each rule."""
        self.add(plan, buckets, skipped)
        self._own = len(self.parts)
        """Of its parts, those that hold whichever model answers."""
        self._joined: str | None = None
        """The model that is to answer, where it is another than the one that was asked for."""

    def add(self, plan: Plan, buckets: Sequence[Bucket], skipped: Sequence[int], tokens: int = 0) -> None:
        """These were drawn from, but for those that only report and had no room."""
        first = len(self.parts)
        self.parts += plan.parts
        self._buckets += buckets
        self._requests += tuple(first + index for index in plan.requests if index not in skipped)
        self._places += tuple(first + index for index in plan.places if index not in skipped)
        self._held |= {first + index: tokens for index in plan.tokens if index not in skipped}

    async def join(self, model: str | None, tokens: int, now: float) -> None:
        """Another model is to answer, with `tokens` at most: its limits count too, and no longer those of one before;
        None: the one that was asked for, again. Raises RateLimited, and then nothing of its limits is charged."""
        if self.who is None or model == self._joined:
            return
        await self._unjoin(now)
        if model is not None:
            await self._limits.admit_also(self, model, tokens, now)
            self._joined = model

    async def _unjoin(self, now: float) -> None:
        """The model that has joined does not answer: its place and its tokens are free; that it was asked stays."""
        own = self._own
        back = {index: -held for index, held in self._held.items() if index >= own}
        await self._move(back | {index: -1 for index in self._places if index >= own}, now)
        self.parts, self._buckets, self._joined = self.parts[:own], self._buckets[:own], None
        self._held = {index: held for index, held in self._held.items() if index < own}
        self._places = tuple(index for index in self._places if index < own)
        self._requests = tuple(index for index in self._requests if index < own)

    async def charge(self, tokens: int, now: float) -> None:
        """Charges what the request can need at most, altogether: at the next target, the difference to what was
        charged for the one before. Raises RateLimited, without the headers that `headers` gives, and then nothing of
        this request stays charged."""
        if not self._held:
            return
        indexes = list(self._held)
        parts = [self.parts[index] for index in indexes]
        for part in parts:
            if part.draw.enforced and tokens > part.draw.rule.amount:
                await self._take_back(now)
                raise too_large(part, tokens)
        draws = [self.parts[index].drawing(tokens - held) for index, held in self._held.items()]
        found = await self._limits.counters.take(draws, now)
        if isinstance(found, Refused):
            await self._take_back(now)
            bucket, cost = found.buckets[found.draw], draws[found.draw].cost
            raise refusal(parts[found.draw], bucket, cost, found.wait)
        if found.skipped:
            key_id = "" if self.who is None else self.who.key_id
            self._limits.report([parts[skipped] for skipped in found.skipped], key_id, now)
        for position, (index, bucket) in enumerate(zip(indexes, found.buckets, strict=True)):
            self._buckets[index] = bucket
            if position in found.skipped:
                del self._held[index]
            else:
                self._held[index] = tokens

    async def correct(self, tokens: int, now: float) -> None:
        """What the request has used in truth, altogether: gives the difference back, or takes it into debt."""
        if self._held:
            await self._move({index: tokens - held for index, held in self._held.items()}, now)
            self._held = dict.fromkeys(self._held, tokens)

    async def end(self, tokens: int, now: float) -> None:
        """The request is over, and has used so much."""
        try:
            await self.correct(tokens, now)
        finally:
            await self.release()

    async def release(self) -> None:
        """Gives the places back. Idempotent. Tokens stay charged as `charge` or `correct` left them."""
        places, self._places = self._places, ()
        if places:
            await self._move(dict.fromkeys(places, -1), self._buckets[places[0]].at)

    def headers(self, now: float) -> dict[str, str]:
        """The limits that are nearest to their ends, as contract.md §11 spells them; none where nothing limits."""
        return headers_of(self.parts, self._buckets, now)

    async def _take_back(self, now: float) -> None:
        """The request counts as never asked."""
        back = dict.fromkeys(self._requests, -1) | {index: -held for index, held in self._held.items()}
        self._requests, self._held = (), dict.fromkeys(self._held, 0)
        await self._move(back, now)

    async def _move(self, costs: dict[int, int], now: float) -> None:
        moved = [index for index, cost in costs.items() if cost != 0]
        if moved:
            draws = [self.parts[index].drawing(costs[index]) for index in moved]
            buckets = await self._limits.counters.correct(draws, now)
            for index, bucket in zip(moved, buckets, strict=True):
                self._buckets[index] = bucket


class _Report(Struct):
    count: int = 0
    logged_at: float = -inf


# --- What clients are told -------------------------------------------------------------------------------------------


def refusal(part: Part, bucket: Bucket, cost: float, wait: float, told: dict[str, str] | None = None) -> RateLimited:
    """Names the limit, whose it is, how much of it is used, and when to try again."""
    words = f"{part.term.words} {part.whose}: {shown(bucket.used)} of {part.draw.rule.amount} used"
    if part.unit == "places":
        sentence = f"{words}. Try again when one of them has ended."
        return RateLimited(sentence, retry_after=PLACE_RETRY, limits=told)
    need = f", and this request may need {ceil(cost)}" if part.unit == "tokens" else ""
    return RateLimited(f"{words}{need}. Try again in {in_words(wait)}.", retry_after=wait, limits=told)


def too_large(part: Part, tokens: int) -> RateLimited:
    """No wait helps, so none is told; without `x-should-retry: false` the SDKs would send it three times in vain."""
    return RateLimited(
        f"{part.term.words} {part.whose}: {part.draw.rule.amount} at most, and this request may need {tokens}. Waiting "
        "does not help: shorten the messages, or set a lower max_completion_tokens.",
        hopeless=True,
    )


def headers_of(parts: Sequence[Part], buckets: Sequence[Bucket], now: float) -> dict[str, str]:
    """Of the rules that may refuse, the one with the smallest share left, for requests and for tokens."""
    told: dict[str, str] = {}
    tightest: dict[Unit, tuple[float, Rule, Bucket]] = {}
    for part, bucket in zip(parts, buckets, strict=True):
        unit, rule = part.unit, part.draw.rule
        share = (rule.amount - bucket.used) / rule.amount
        if part.draw.enforced and unit != "places" and (unit not in tightest or share < tightest[unit][0]):
            tightest[unit] = (share, rule, bucket)
    for unit, (_, rule, bucket) in tightest.items():
        left = floor(rule.amount * (1 + CRUMB) - bucket.used)
        told[f"x-ratelimit-limit-{unit}"] = str(rule.amount)
        told[f"x-ratelimit-remaining-{unit}"] = str(max(0, left))
        told[f"x-ratelimit-reset-{unit}"] = duration(bucket.used / rule.rate - (now - bucket.at))
    return told


def duration(seconds: float) -> str:
    """`12ms`, `1s`, `6m0s`, `1h2m3s`: whole milliseconds below a second, whole seconds above, rounded up."""
    milliseconds = max(0, ceil(seconds * 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(-(-milliseconds // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def in_words(wait: float) -> str:
    """A wait for a sentence, rounded up."""
    return f"{ceil(wait * 10) / 10:.1f} s" if wait < 60 else duration(wait)


def shown(used: float) -> int:
    """How much of a limit is used, in whole ones: one that is not all there again counts as used."""
    return ceil(used - CRUMB * used)


def names(kind: Kind, subject: str) -> Iterator[str]:
    """The subjects under which the limits of one are looked for, its own first; a model of `NAME/*` has that too."""
    yield subject
    family = subject
    while kind == "model" and "/" in family:
        family = family.rpartition("/")[0]
        yield f"{family}/*"
    yield EACH


def need_of(bound: Bound) -> int:
    """The tokens that a request is charged with before it is answered: its prompt's, estimated where only the upstream
    can count them (the bound by bytes is several times too high, and would refuse for good what may well pass), and as
    many as it may be answered with. An answer without a limit is charged when it has ended."""
    prompt = bound.prompt_tokens
    if bound.counted_by != "exact":
        prompt = max(1, prompt // BYTES_PER_TOKEN)
    return prompt + (bound.output_tokens or 0)


def short(name: str | None) -> str | None:
    """An end user as the account and the limits know it: of a long name, which a client may choose, a digest."""
    if name is None or len(name) <= LONGEST_NAME:
        return name
    return "sha256:" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
