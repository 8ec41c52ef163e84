"""The account of every token: what a request may cost is held before it is sent, and posted before its end is told.

The promises (docs/ledger.md), and what keeps them:

* No overspend: a hold covers the prompt's bound and a slice of output, and is extended while the answer runs; whatever
  is not covered is cut off. Only the transaction in `store/books.py` says whether there is room.
* Nothing lost: the hold is durable before an upstream is asked, with a checkpoint that moves on while the answer runs;
  the posting before the reply's end. Where the store fails in between, posting is tried again until it is back.
* Once: whoever removes the hold posts, and nobody else.

`Meter` is one request's part of it, `Ledger` what they have in common: the line of those who wait for others' holds,
the postings that are tried again, the heartbeat, and what dead workers have left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from bisect import insort
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import Final

import msgspec
from msgspec import Struct, structs

from chatport.ids import fresh
from chatport.policy.budgets import Budgets
from chatport.policy.owners import Owners
from chatport.policy.prices import Prices, Rates, Tokens, charge_nano, cost_pico, nano
from chatport.policy.quota import exhausted, waited_in_vain
from chatport.store.account import (
    Answer,
    Checkpoint,
    CountedBy,
    Ending,
    Held,
    Hold,
    HoldAccount,
    HoldRow,
    Lost,
    NoRoom,
    Place,
    Placed,
    PostingRow,
    Settlement,
)
from chatport.store.errors import StoreUnavailable
from chatport.store.journal import Journal
from chatport.wire.errors import Unavailable

WAKE_EVERY: Final = 0.25
"""Seconds between two tries of who waits for room: other processes release holds without a word."""

MOST_NANO: Final = 2**62
"""Nano-dollars of one posting: more than four billion dollars, and half of what a column holds."""

BEATS: Final = 6
"""Heartbeats in a lease."""

HOLD_LOST: Final = "The server lost track of this request. Send it again."

log = logging.getLogger("chatport")


class LedgerSettings(Struct, frozen=True, kw_only=True):
    """Sizes and times, with the defaults of docs/ledger.md."""

    slice_tokens: int = 512
    """Output that is held at a time, for each choice."""
    checkpoint_tokens: int = 64
    checkpoint_seconds: float = 1.0
    budget_wait: float = 5.0
    """Seconds that a request waits for room that others' holds take."""
    lease_seconds: float = 30.0
    """A worker that was not seen for so long is dead."""
    retry_seconds: float = 1.0
    """Between two tries to post what the store did not take."""


class Rules(Struct, frozen=True, kw_only=True):
    """What operators have set."""

    budgets: Budgets
    prices: Prices
    owners: Owners

    async def load(self) -> None:
        """Takes everything into memory. Raises StoreUnavailable."""
        await self.budgets.load()
        await self.prices.load()
        await self.owners.load()


class Ledger:
    """What the meters of all requests of this process share."""

    def __init__(
        self,
        journal: Journal,
        rules: Rules,
        settings: LedgerSettings = LedgerSettings(),  # noqa: B008  frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.journal = journal
        self.budgets = rules.budgets
        self.prices = rules.prices
        self.owners = rules.owners
        self.settings = settings
        self.clock = clock
        self.worker_id = fresh("worker_")
        self._line: list[_Ticket] = []
        self._arrivals = count()
        self._unposted: list[tuple[Settlement, Callable[[], None]]] = []
        self._doubtful: list[tuple[float, str]] = []

    @property
    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    # --- Holds -------------------------------------------------------------------------------------------------------

    async def place(self, hold: Hold, write: Callable[[Hold], Awaitable[Answer]]) -> None:
        """Has a hold written where every budget has room for it; a patient one when it has: first come, first served.
        Raises QuotaExhausted where what is posted leaves too little, RateLimited where others' holds take it (for too
        long), Unavailable when the hold that was to be changed is not there any more."""
        if not hold.patient:
            self.accept(await write(hold))
            return
        ticket = _Ticket({claim.place for claim in hold.claims if claim.enforced}, next(self._arrivals))
        if not any(other.places & ticket.places for other in self._line):
            answer = await write(hold)
            if not isinstance(answer, NoRoom) or answer.exhausted:
                self.accept(answer)
                return
        await self._in_line(hold, ticket, write)

    async def _in_line(self, hold: Hold, ticket: _Ticket, write: Callable[[Hold], Awaitable[Answer]]) -> None:
        """Waits until those who came before have had their turn and there is room."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.settings.budget_wait
        refusal: NoRoom | None = None
        insort(self._line, ticket, key=lambda each: each.arrival)
        try:
            while (left := until - clock()) > 0:
                if not self._is_first(ticket):
                    await ticket.wait(left)  # whoever goes wakes the next
                    continue
                answer = await write(hold)
                if not isinstance(answer, NoRoom) or answer.exhausted:
                    self.accept(answer)
                    return
                refusal = answer
                await ticket.wait(min(left, WAKE_EVERY))
            if refusal is not None:
                # It was its turn, and its time is over: it takes what there is.
                answer = await write(structs.replace(hold, patient=False))
                if not isinstance(answer, NoRoom) or answer.exhausted:
                    self.accept(answer)
                    return
        finally:
            self._line.remove(ticket)
            self._wake(ticket.places)
        raise waited_in_vain(self.budgets, refusal, self.settings.budget_wait)

    def _is_first(self, ticket: _Ticket) -> bool:
        for other in self._line:
            if other is ticket:
                return True
            if other.places & ticket.places:
                return False
        return False

    def _wake(self, places: set[Place]) -> None:
        """Wakes those who are first for one of the places: nobody else may try."""
        ahead: set[Place] = set()
        for ticket in self._line:
            if ticket.places & places and not ticket.places & ahead:
                ticket.event.set()
            ahead |= ticket.places
            if places <= ahead:
                return

    def accept(self, answer: Answer) -> None:
        """Raises what refuses a hold; see `place`."""
        match answer:
            case Placed():
                pass
            case NoRoom() if answer.exhausted:
                raise exhausted(self.budgets, answer, self.clock())
            case NoRoom():
                raise waited_in_vain(self.budgets, answer, 0.0)
            case Lost():
                raise Unavailable(HOLD_LOST)

    def doubt(self, request_id: str) -> None:
        """A hold may have been written although the store did not say so: it goes when the store can be asked. What is
        still on its way there may be written even later, so that it is looked for once more after a lease."""
        now = self.clock()
        self._doubtful += [(now, request_id), (now + self.settings.lease_seconds, request_id)]

    # --- Postings ----------------------------------------------------------------------------------------------------

    async def post(self, settlement: Settlement, then: Callable[[], None] = lambda: None) -> None:
        """Posts a request, even if the caller is cancelled. Raises StoreUnavailable; then it is tried again until the
        store takes it. `then` is called when it is there, or never will be."""
        writing = self.journal.settle(settlement)
        try:
            await writing
        finally:  # a caller who is cancelled hears of that when it is done; one who is thrown away does not wait
            if writing.done():
                self._posted(settlement, then, writing)
            else:
                writing.add_done_callback(partial(self._posted, settlement, then))

    def _post_again(self, settlement: Settlement, then: Callable[[], None]) -> asyncio.Future[bool]:
        writing = self.journal.settle(settlement)
        writing.add_done_callback(partial(self._posted, settlement, then))
        return writing

    def _posted(self, settlement: Settlement, then: Callable[[], None], done: asyncio.Future[bool]) -> None:
        match done.exception():
            case None:
                then()
            case StoreUnavailable():
                self._unposted.append((settlement, then))
                return
            case exc:
                # It would fail again, and for ever. Its hold stays, until this worker ends and another settles it.
                log.error("request %s can't be posted", settlement.posting.id, exc_info=exc)
                then()
                return
        if not done.result():
            log.warning("request %s was settled by another worker: this one was taken for dead", settlement.posting.id)
        if self._line:
            self._wake({taken.place for taken in settlement.taken})

    def check(self, checkpoint: Checkpoint) -> None:
        """Notes how far an answer is, without waiting for it. One that is not written leaves the one before."""
        self.journal.checkpoint(checkpoint).add_done_callback(asyncio.Future.exception)

    # --- As long as the process lives --------------------------------------------------------------------------------

    async def start(self) -> None:
        """The worker says that it lives, before its first request, and settles what those have left that are known to
        have died. Raises StoreUnavailable."""
        await self.journal.enter(self.worker_id, self.now_ms)
        await self.bury()

    async def run(self) -> None:
        """Heartbeats, recovery, postings tried again: for as long as the server runs.

        Others are taken for dead only by who has reached the store for a whole lease without a break: when it comes
        back after an outage, nobody has been seen for long and all of them live.
        """
        lease, clock = self.settings.lease_seconds, time.monotonic
        due, reached_since = 0.0, clock()
        failing = False
        while True:
            await asyncio.sleep(min(self.settings.retry_seconds, lease / BEATS))
            try:
                now = clock()
                beats = now >= due
                if beats:  # first of all: whatever else fails or lasts, this worker lives
                    due = now + lease / BEATS
                    await self.journal.beat(self.worker_id, self.now_ms)
                await self.retry()
                if beats:
                    await self.bury()
                if beats and now - reached_since >= lease:
                    await self.recover()
                failing = False
            except StoreUnavailable as exc:
                if not failing:
                    log.error("the account can't be written for now: %s", exc)
                failing, reached_since = True, clock()
            except Exception:  # the heartbeat outlives whatever it is
                log.exception("the account can't be put in order")

    async def close(self) -> None:
        """What could not be posted is tried once more; what still can't is left to whoever recovers it."""
        with contextlib.suppress(StoreUnavailable):
            await self.retry()
            await self.journal.leave(self.worker_id)

    async def retry(self) -> None:
        """Posts what the store did not take, and drops holds of requests that were never sent. Raises
        StoreUnavailable."""
        waiting, self._unposted = self._unposted, []
        again = [self._post_again(settlement, then) for settlement, then in waiting]
        faults = await asyncio.gather(*again, return_exceptions=True)
        for fault in faults:
            if isinstance(fault, StoreUnavailable):
                raise fault
        now = self.clock()
        for due, request_id in [doubt for doubt in self._doubtful if doubt[0] <= now]:
            row = await self.journal.held(request_id)
            if row is not None:
                await self.journal.settle(unsent(row, self.now_ms))
            self._doubtful.remove((due, request_id))

    async def recover(self) -> int:
        """Settles what workers hold that have not been seen for a lease, at its last checkpoint; returns how much."""
        before = self.now_ms - int(self.settings.lease_seconds * 1000)
        orphans = await self.journal.orphans(before)
        await self._settle_for(orphans)
        await self.journal.forget_workers(before)
        return len(orphans)

    async def bury(self) -> int:
        """Settles what workers hold that are known to have died, wherever that can be known; returns how much."""
        count = 0
        for worker_id in self.journal.dead():
            orphans = await self.journal.held_by(worker_id)
            await self._settle_for(orphans)
            await self.journal.leave(worker_id)
            count += len(orphans)
        return count

    async def _settle_for(self, orphans: list[HoldRow]) -> None:
        """Raises StoreUnavailable; one that can't be settled keeps no other from it, and no server from starting."""
        settling = [self.journal.settle(crashed(row, self.now_ms)) for row in orphans]
        for row, done in zip(orphans, await asyncio.gather(*settling, return_exceptions=True), strict=True):
            if isinstance(done, StoreUnavailable):
                raise done
            if isinstance(done, BaseException):
                log.error("request %s of a worker that died can't be settled", row.request_id, exc_info=done)
        if orphans:
            log.warning("%s requests of workers that died were settled at their last checkpoint", len(orphans))


class _Ticket:
    """A place in the line, by when it came: it may have been refused while later ones were waiting already."""

    def __init__(self, places: set[Place], arrival: int) -> None:
        self.places = places
        self.arrival = arrival
        self.event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.event.wait()
        self.event.clear()


def crashed(row: HoldRow, now_ms: int) -> Settlement:
    """The end of a request whose worker has died."""
    tokens = Tokens(prompt=row.prompt_tokens, completion=row.completion_tokens)
    return settlement(row, tokens, now_ms, ending="crash", counted_by="estimate", total_ms=now_ms - row.created_ms)


def unsent(row: HoldRow, now_ms: int) -> Settlement:
    """The end of a request that was told no because its hold was in doubt."""
    return settlement(row, Tokens(), now_ms, ending="refused", counted_by="estimate", error="503 service_unavailable")


def settlement(  # noqa: PLR0913  each is a column of it, by its name
    row: HoldRow,
    tokens: Tokens,
    now_ms: int,
    *,
    ending: Ending,
    counted_by: CountedBy,
    error: str | None = None,
    queue_ms: int = 0,
    first_ms: int | None = None,
    total_ms: int = 0,
) -> Settlement:
    """A hold turned into a posting."""
    account = row.account
    cost = 0 if account.rates is None else cost_pico(rates_of(account), tokens)
    charge = _capped(charge_nano(cost, account.factor_ppm))
    taken: tuple[Held, ...] = ()
    over_hold = False
    if held := account.held:
        spent = tokens.prompt + tokens.completion
        taken = tuple([structs.replace(each, amount=spent if each.unit == "token" else charge) for each in held])
        over_hold = any(
            before.enforced and after.amount > before.amount for before, after in zip(held, taken, strict=True)
        )
    posting = PostingRow(  # by place: msgspec looks through all of its names for each that is given by name
        row.request_id,
        row.created_ms,
        now_ms,
        "request",
        account.key_id,
        account.owner,
        account.end_user,
        account.model,
        account.target,
        account.attempts,
        account.streamed,
        tokens.prompt,
        tokens.cached,
        tokens.cache_write,
        tokens.audio_prompt,
        tokens.image,
        tokens.completion,
        tokens.reasoning,
        tokens.audio_completion,
        counted_by,
        account.held_nano,
        _capped(nano(cost)),
        charge,
        account.price_id,
        account.factor_ppm,
        ending,
        over_hold,
        error,
        queue_ms,
        first_ms,
        total_ms,
    )
    return Settlement(posting=posting, taken=taken)


def _capped(amount: int) -> int:
    """Nano-dollars as they are posted."""
    if amount > MOST_NANO:
        return MOST_NANO
    return amount


def rates_of(account: HoldAccount) -> Rates:
    """The price that a hold was made at."""
    return account.rates if isinstance(account.rates, Rates) else msgspec.convert(account.rates, Rates)
