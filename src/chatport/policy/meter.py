"""One request's part of the account, from before it is sent until it is posted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, field, structs

from chatport.policy.budgets import Payer
from chatport.policy.keeping import Kept
from chatport.policy.ledger import Ledger, settlement
from chatport.policy.prices import Price, Tokens, charge_nano, most
from chatport.store.account import (
    Answer,
    AttemptRow,
    Checkpoint,
    Claim,
    CountedBy,
    Ending,
    Hold,
    HoldAccount,
    HoldRow,
    Placed,
)
from chatport.store.budgets import BudgetRow
from chatport.store.errors import StoreUnavailable
from chatport.targets import Bound
from chatport.wire.chat import ChatChunk, Usage
from chatport.wire.errors import AccessDenied, ApiError, InvalidRequest, quote
from chatport.wire.tally import BYTES_PER_TOKEN, Estimate, Tally, usage_of

UNBOUNDED: Final = 1 << 40
"""Tokens of output: more than any answer has."""

SPLIT: Final = 4
"""Pieces of each choice that need not be tokens: the head of a call, say, is made one of its own on its way."""

LONGEST_TOKENS: Final = 32
"""Bytes of a token that hardly any answer exceeds on the average: long runs of spaces and rules come near it."""

PICO_PER_NANO: Final = 1000
MILLION: Final = 1_000_000

KNOWN_HERE: Final = frozenset({"exact"})
"""How a bound was counted when its count is the true one."""


class Going(Struct, frozen=True, kw_only=True):
    """Where a request is about to be sent."""

    model: str
    target: str
    bound: Bound
    choices: int
    attempt: int
    listed: str | None = None
    """The target's entry in a list of prices."""


class Metered(Struct, frozen=True, kw_only=True):
    """A request, as far as the account is concerned."""

    id: str
    payer: Payer
    streamed: bool
    factor_ppm: int = MILLION
    """Of its owner: charge = cost x factor."""
    kept: Kept = field(default_factory=Kept)
    """What is kept of it, in the transaction that posts it."""
    stopped: Callable[[], bool] = lambda: False
    """Whether the server itself ends it; a cancellation says otherwise that the client has left."""


class Meter:
    """Holds, observes, settles. A context: whatever happens to the request, it is posted once on the way out."""

    def __init__(self, ledger: Ledger, request: Metered) -> None:
        self.cut = False
        """A budget has ended the answer before its time."""
        self.broke: Exception | None = None
        """What ended the answer, where the client was told in the stream."""
        self.kept = request.kept
        self.spent = 0
        """Tokens of prompt and answer that it has come to: known when it is posted."""
        self._ledger = ledger
        self._request = request
        self._payer = request.payer
        self._factor_ppm = request.factor_ppm
        self._began = ledger.clock()
        self._row: HoldRow | None = None
        self._writing: asyncio.Future[Answer] | None = None
        self._failures: list[AttemptRow] = []
        self._going: Going | None = None
        self._claims: tuple[Claim, ...] = ()
        self._enforced = False
        self._output = 0
        self._affordable = 0
        self._wanted = UNBOUNDED
        self._settled = False
        self._tally = Tally()
        self._sent: float | None = None
        self._first: float | None = None
        self._pieces_due = 0
        """Pieces at which the next checkpoint is due, or"""
        self._time_due = 0.0
        """the time, whichever comes first."""

    # --- Before it is sent -------------------------------------------------------------------------------------------

    def must_be_cut(self, models: Iterable[str]) -> bool:
        """Whether a budget may have to end the answer of one of the models half-way: then it must be streamed, whatever
        the client wants."""
        budgets = self._ledger.budgets
        return any(budget.mode == "enforce" for model in models for budget in budgets.of(self._payer, model))

    async def cover(self, going: Going) -> int | None:
        """Holds what an attempt can cost, in the place of what is held for the one before. Returns the tokens of output
        for all choices that it may be asked for, where that is less than it wants to. Raises QuotaExhausted,
        RateLimited, AccessDenied, StoreUnavailable."""
        price = self._ledger.prices.at(going.model, self._began, going.listed)
        budgets = self._ledger.budgets.of(self._payer, going.model)
        self._claims = tuple([self._claim(budget, price, going) for budget in budgets]) if budgets else ()
        self._enforced = bool(budgets) and any(claim.enforced for claim in self._claims)
        limit = going.bound.output_tokens
        least, slice_ = going.choices, self._ledger.settings.slice_tokens * going.choices
        if limit is None:
            self._wanted = UNBOUNDED
        else:
            self._wanted, least, slice_ = limit, min(limit, least), min(limit, slice_)
        row = self._described(going, price, slice_)
        await self._place(row, least=least, most=slice_, patient=True)
        self._going = going
        self._sent = self._ledger.clock()
        # A request without a limit gets one only where its end is near: upstreams refuse one that is beyond what they
        # can do, and the answer is cut where no slice more can be held.
        if self._affordable >= self._wanted or (limit is None and self._affordable > slice_):
            return None
        self._wanted = max(self._affordable - self._affordable % going.choices, going.choices)
        return self._wanted

    def _claim(self, budget: BudgetRow, price: Price | None, going: Going) -> Claim:
        """What the attempt may take from one budget."""
        enforced = budget.mode == "enforce"
        base, each, scale = going.bound.prompt_tokens, 1, 1
        if budget.unit == "nano":
            if price is None and enforced:
                raise AccessDenied(
                    f"The model {quote(going.model)} has no price, so that it can't be used under a budget of money. "
                    "Ask the operator to set one."
                )
            base, each, scale = (0, 0, 1) if price is None else self._priced(price, going)
        return Claim(
            budget_id=budget.id,
            period=self._ledger.budgets.calendar.began(budget, self._began),
            base=base,
            each=each,
            scale=scale,
            unit=budget.unit,
            enforced=enforced,
            parent=budget.parent,
            end_user=budget.end_user,
        )

    def _priced(self, price: Price, going: Going) -> tuple[int, int, int]:
        """What prompt and request come to, one token of output, and in how many parts of a nano-dollar that is said."""
        each_prompt, each_output, request = most(price.rates)
        base = (going.bound.prompt_tokens * each_prompt + request) * self._factor_ppm
        return base, each_output * self._factor_ppm, PICO_PER_NANO * MILLION

    def _described(self, going: Going, price: Price | None, output: int) -> HoldRow:
        held = 0
        if price is not None:
            each_prompt, each_output, request = most(price.rates)
            cost = going.bound.prompt_tokens * each_prompt + output * each_output + request
            held = charge_nano(cost, self._factor_ppm)
        account = HoldAccount(
            key_id=self._payer.key_id,
            owner=self._payer.owner,
            end_user=self._payer.end_user,
            model=going.model,
            target=going.target,
            attempts=going.attempt,
            streamed=self._request.streamed,
            price_id=None if price is None else price.id,
            rates=None if price is None else price.rates,
            factor_ppm=self._factor_ppm,
            held_nano=held,
            held=() if self._row is None else self._row.account.held,
        )
        return HoldRow(
            request_id=self._request.id,
            worker_id=self._ledger.worker_id,
            created_ms=int(self._began * 1000),
            account=account,
            prompt_tokens=going.bound.prompt_tokens,
            completion_tokens=0,
        )

    async def _place(self, row: HoldRow, *, least: int, most: int, patient: bool) -> None:
        new = self._row is None
        hold = Hold(row=row, new=new, claims=self._claims, least=least, most=most, wanted=self._wanted, patient=patient)
        if hold.claims:
            await self._ledger.place(hold, self._write)
        else:  # nobody has to be waited for
            self._ledger.accept(await self._write(hold))

    async def _write(self, hold: Hold) -> Answer:
        """Has the hold written. Whoever is cancelled meanwhile: what was written is known when it is written. An
        upstream that has been asked need not wait so long to hear that nobody listens."""
        writing = self._writing = self._ledger.journal.hold(hold)
        if hold.new:
            try:
                return await writing
            finally:
                if writing.done():
                    self._written(hold, writing)
                else:
                    writing.add_done_callback(partial(self._written, hold))
        writing.add_done_callback(partial(self._written, hold))
        return await asyncio.shield(writing)

    def _written(self, hold: Hold, done: asyncio.Future[Answer]) -> None:
        self._writing = None
        if done.exception() is not None:
            if hold.new:
                self._ledger.doubt(hold.row.request_id)
            return
        placed = done.result()
        if isinstance(placed, Placed):
            self._output = placed.output
            self._affordable = placed.affordable
            self._row = hold.row
            if placed.held != hold.row.account.held:
                self._row = structs.replace(hold.row, account=structs.replace(hold.row.account, held=placed.held))

    # --- While it is answered ----------------------------------------------------------------------------------------

    def observe(self, chunk: ChatChunk) -> bool:
        """A piece of the answer, before it is sent on. True: `extend` must say whether there may be another."""
        tally = self._tally
        tally.add(chunk)
        now = self._ledger.clock()
        if self._first is None:
            self._first = now
            self._check_later(0, now)
        if tally.pieces >= self._pieces_due or now >= self._time_due:
            self._check(now)
        return self._enforced and (tally.bound > self._output < self._wanted or self._is_ignored)

    @property
    def _is_ignored(self) -> bool:
        """Whether the answer is longer than it may be, whatever its tokens are: the upstream keeps to no limit."""
        choices = 1 if self._going is None else self._going.choices
        tally, most_ = self._tally, self._wanted + SPLIT * choices
        return tally.pieces > most_ or tally.size > LONGEST_TOKENS * most_

    async def extend(self) -> bool:
        """Holds another slice. False: there is no room for it, and the answer ends here (`cut`)."""
        if self._row is None or self._going is None:
            return True  # nothing was held: there is nothing to pay
        if self._is_ignored:
            self.cut = True
            return False
        slice_ = self._ledger.settings.slice_tokens * self._going.choices
        most_ = min(self._wanted, max(self._output + slice_, self._tally.bound))
        row = structs.replace(self._row, completion_tokens=self._tally.tokens)
        try:
            await self._place(row, least=min(self._tally.bound, self._wanted), most=most_, patient=False)
        except ApiError:
            self.cut = True
        return not self.cut

    def failed(self, error: ApiError) -> None:
        """An attempt came to nothing; the next one, if there is any, is covered anew."""
        going, sent = self._going, self._sent
        if going is not None and sent is not None:
            self._failures.append(
                AttemptRow(
                    request_id=self._request.id,
                    number=going.attempt,
                    target=going.target,
                    model=going.model,
                    began_ms=int(sent * 1000),
                    ended_ms=self._ledger.now_ms,
                    outcome=_told(error) or "",
                )
            )

    def _check(self, now: float) -> None:
        """Notes how far the answer is, without waiting for it."""
        self._check_later(self._tally.pieces, now)
        if self._row is not None:
            self._ledger.check(
                Checkpoint(
                    request_id=self._request.id,
                    prompt_tokens=self._row.prompt_tokens,
                    completion_tokens=self._tally.tokens,
                )
            )

    def _check_later(self, pieces: int, now: float) -> None:
        settings = self._ledger.settings
        self._pieces_due = pieces + settings.checkpoint_tokens
        self._time_due = now + settings.checkpoint_seconds

    # --- Its end -----------------------------------------------------------------------------------------------------

    def settle(self, usage: Usage) -> Awaitable[None]:
        """The answer is whole, or cut: posts what it used, with what is kept of it. Raises StoreUnavailable; then it is
        posted later."""
        guessed = self.cut or type(usage) is Estimate
        counted_by: CountedBy = "estimate" if guessed else self._counted_by()
        return self._post(Tokens.of(usage), "cut" if self.cut else "complete", counted_by, None)

    @property
    def estimate(self) -> Tokens:
        """What was used so far, as far as can be told from here."""
        if self._going is None:
            return Tokens()
        bound = self._going.bound
        prompt = (
            bound.prompt_tokens if bound.counted_by in KNOWN_HERE else max(1, bound.prompt_tokens // BYTES_PER_TOKEN)
        )
        return Tokens(prompt=prompt, completion=self._estimated_output)

    @property
    def _estimated_output(self) -> int:
        """By its length; where a budget pays, no more than is held, unless there are more pieces than that."""
        tally = self._tally
        return max(tally.pieces, min(tally.tokens, self._output)) if self._enforced else tally.tokens

    @property
    def used(self) -> Usage:
        """The same, as the API says it."""
        tokens = self.estimate
        return usage_of(tokens.prompt, tokens.completion)

    def _counted_by(self) -> CountedBy:
        exact = self._going is not None and self._going.bound.counted_by in KNOWN_HERE
        return "tokenizer" if exact else "upstream"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        """Posts a request that did not come to its end, shielded from whoever cancels it again."""
        if self._settled or (self._row is None and self._writing is None):
            return
        ending = asyncio.ensure_future(self._give_up(exc or self.broke))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            ending.exception()  # taken: what could not be posted is tried again
            raise
        except StoreUnavailable:
            if exc is None:
                raise

    async def _give_up(self, exc: BaseException | None) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
        tokens = Tokens() if self._is_free(exc) else self.estimate
        await self._post(tokens, self._ending(exc), "estimate", exc)

    def _is_free(self, exc: BaseException | None) -> bool:
        """Whether nothing was used: it was never sent, or failed before it said anything."""
        return self._sent is None or (isinstance(exc, Exception) and self._first is None)

    def _ending(self, exc: BaseException | None) -> Ending:
        if isinstance(exc, asyncio.CancelledError):
            return "stopped" if self._request.stopped() else "client_gone"
        if self._first is None and (self._sent is None or isinstance(exc, InvalidRequest)):
            return "refused"
        return "upstream_error"

    async def _post(self, tokens: Tokens, ending: Ending, counted_by: CountedBy, exc: BaseException | None) -> None:
        self._settled = True
        self.spent = tokens.prompt + tokens.completion
        if self._row is None:
            return
        now = self._ledger.clock()
        posting = settlement(
            self._row,
            tokens,
            int(now * 1000),
            ending=ending,
            counted_by=counted_by,
            error=_told(exc),
            queue_ms=_ms(self._began, self._sent),
            first_ms=None if self._first is None else _ms(self._began, self._first),
            total_ms=_ms(self._began, now),
        )
        also = self.kept.works()
        if also or self._failures:
            posting = structs.replace(posting, attempts=tuple(self._failures), also=also)
        await self._ledger.post(posting, self.kept.posted)


def _ms(start: float, end: float | None) -> int:
    return 0 if end is None or end <= start else round((end - start) * 1000)


def _told(exc: BaseException | None) -> str | None:
    """The status and code that the client was told."""
    if exc is None or isinstance(exc, asyncio.CancelledError):
        return None
    return f"{exc.status} {exc.code or exc.type}" if isinstance(exc, ApiError) else "500 api_error"
