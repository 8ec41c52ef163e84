"""The whole story of one request, from its record: who, when, where, what it held, used and cost, and how it ended."""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct, json

from chatport.policy.prices import Rates, Tokens, rates_at, rates_of_day
from chatport.policy.standing import scope_of
from chatport.store.account import AttemptRow, HoldRow, PostingRow
from chatport.store.budgets import Mode, Unit
from chatport.store.records import Record, Taken
from chatport.wire.errors import NotFound, quote

PARTS: Final = {
    "cached": "prompt",
    "cache_write": "prompt",
    "audio_prompt": "prompt",
    "image": "prompt",
    "reasoning": "completion",
    "audio_completion": "completion",
}
"""Kinds of tokens, each among those of the prompt or of the completion."""


class CostLine(Struct, frozen=True, kw_only=True):
    """One kind of what was used: `tokens` x `pico_each` = `pico`. Pico-dollars; of a request as such, one."""

    kind: str
    tokens: int
    pico_each: int
    pico: int


class PriceTold(Struct, frozen=True, kw_only=True):
    """The price that a request was made at. `rates`: pico-dollars by kind; `effective_at`: Unix seconds."""

    id: str
    source: str | None = None
    effective_at: int | None = None
    rates: Raw | None = None
    """None: that version is not in the database."""


class TakenTold(Struct, frozen=True, kw_only=True):
    """What a request took, or holds, of one budget. In its unit; `period`: Unix seconds when it began, 0: once."""

    budget_id: str
    scope: str | None
    mode: Mode | None
    period: int
    unit: Unit
    amount: int


class AttemptTold(Struct, frozen=True, kw_only=True):
    """A try that another one followed, or that failed last. `ms`: how long it took."""

    number: int
    target: str
    model: str
    ms: int
    outcome: str
    cost_nano: int
    """The operator's; the key does not pay for it."""


class ContentTold(Struct, frozen=True, kw_only=True):
    """What was asked and answered. `expires_at`: Unix seconds."""

    request: Raw | str
    """The body as it was received; as text where it is no JSON."""
    reply: Raw | None
    expires_at: int


class Story(Struct, frozen=True, kw_only=True):
    """One request. Amounts are nano-dollars, spans milliseconds, times Unix seconds."""

    id: str
    state: str
    """`posted`, or `held` while it runs; of one that runs, tokens are those of its last checkpoint."""
    key_id: str
    key_name: str | None
    owner: str | None
    end_user: str | None
    model: str
    target: str | None
    attempts: int
    streamed: bool
    created_at: float
    settled_at: float | None
    queue_ms: int | None
    first_ms: int | None
    """Until the first token."""
    total_ms: int | None
    ending: str | None
    error: str | None
    """The status and code that the client was told."""
    tokens: Tokens
    counted_by: str | None
    price: PriceTold | None
    """None: the model has no price."""
    lines: list[CostLine]
    """What the cost is made of; empty without a price whose rates are known."""
    held_nano: int
    cost_nano: int
    factor_ppm: int
    """charge = cost x factor; millionths."""
    charge_nano: int
    over_hold: bool
    budgets: list[TakenTold]
    failed_attempts: list[AttemptTold]
    content: ContentTold | None


def told(record: Record | None, request_id: str) -> Story:
    """The story of a record. Raises NotFound where there is none."""
    if record is not None and record.posting is not None:
        return _of_posting(record, record.posting)
    if record is not None and record.hold is not None:
        return _of_hold(record, record.hold)
    raise NotFound(
        f"No request with the id {quote(request_id)}. It is a reply's x-request-id; requests that never went to a "
        "model have no record, and old records are removed after ledger.keep_days."
    )


def cost_lines(rates: Rates, tokens: Tokens, began: float) -> list[CostLine]:
    """What a cost is made of, by kind of token: together exactly what `cost_pico` says. `rates`: as they are kept;
    `began`: Unix seconds, since some prices go by the time of the day."""
    used = tokens.clamped()
    holding = rates_of_day(rates, began)
    at = rates_at(holding, used.prompt)
    lines = [_line("request", 1, holding.request)] if holding.request else []
    for whole in ("prompt", "completion"):
        parts = {kind: getattr(used, kind) for kind, of in PARTS.items() if of == whole}
        plain: int = getattr(at, whole)
        lines.append(_line(whole, getattr(used, whole) - sum(parts.values()), plain))
        for kind, count in parts.items():
            own: int | None = getattr(at, kind)
            lines.append(_line(kind, count, plain if own is None else own))
    return [line for line in lines if line.tokens]


def _line(kind: str, tokens: int, pico_each: int) -> CostLine:
    return CostLine(kind=kind, tokens=tokens, pico_each=pico_each, pico=pico_each * tokens)


def _of_posting(record: Record, posting: PostingRow) -> Story:
    tokens = Tokens(
        prompt=posting.prompt_tokens,
        cached=posting.cached_tokens,
        cache_write=posting.cache_write_tokens,
        audio_prompt=posting.audio_prompt_tokens,
        image=posting.image_tokens,
        completion=posting.completion_tokens,
        reasoning=posting.reasoning_tokens,
        audio_completion=posting.audio_completion_tokens,
    )
    rates = None if record.price is None else json.decode(record.price.rates, type=Rates)
    return Story(
        id=posting.id,
        state="posted",
        key_id=posting.key_id or "",
        key_name=record.key_name,
        owner=posting.owner,
        end_user=posting.end_user,
        model=posting.model or "",
        target=posting.target,
        attempts=posting.attempts,
        streamed=posting.streamed,
        created_at=posting.created_ms / 1000,
        settled_at=posting.settled_ms / 1000,
        queue_ms=posting.queue_ms,
        first_ms=posting.first_ms,
        total_ms=posting.total_ms,
        ending=posting.ending,
        error=posting.error,
        tokens=tokens,
        counted_by=posting.counted_by,
        price=_price(record, posting.price_id),
        lines=[] if rates is None or not posting.cost_nano else cost_lines(rates, tokens, posting.created_ms / 1000),
        held_nano=posting.held_nano,
        cost_nano=posting.cost_nano,
        factor_ppm=posting.factor_ppm,
        charge_nano=posting.charge_nano,
        over_hold=posting.over_hold,
        budgets=[_taken(taken) for taken in record.taken],
        failed_attempts=[_attempt(row) for row in record.attempts],
        content=_content(record),
    )


def _of_hold(record: Record, hold: HoldRow) -> Story:
    account = hold.account
    return Story(
        id=hold.request_id,
        state="held",
        key_id=account.key_id,
        key_name=record.key_name,
        owner=account.owner,
        end_user=account.end_user,
        model=account.model,
        target=account.target,
        attempts=account.attempts,
        streamed=account.streamed,
        created_at=hold.created_ms / 1000,
        settled_at=None,
        queue_ms=None,
        first_ms=None,
        total_ms=None,
        ending=None,
        error=None,
        tokens=Tokens(prompt=hold.prompt_tokens, completion=hold.completion_tokens),
        counted_by=None,
        price=_price(record, account.price_id),
        lines=[],
        held_nano=account.held_nano,
        cost_nano=0,
        factor_ppm=account.factor_ppm,
        charge_nano=0,
        over_hold=False,
        budgets=[
            TakenTold(
                budget_id=held.budget_id,
                scope=None,
                mode="enforce" if held.enforced else "report",
                period=held.period,
                unit=held.unit,
                amount=held.amount,
            )
            for held in account.held
        ],
        failed_attempts=[],
        content=None,
    )


def _price(record: Record, price_id: str | None) -> PriceTold | None:
    if price_id is None:
        return None
    price = record.price
    if price is None:
        return PriceTold(id=price_id)
    return PriceTold(id=price.id, source=price.source, effective_at=price.effective_at, rates=Raw(price.rates))


def _taken(taken: Taken) -> TakenTold:
    budget = taken.budget
    return TakenTold(
        budget_id=budget.id,
        scope=scope_of(budget),
        mode=budget.mode,
        period=taken.period,
        unit=budget.unit,
        amount=taken.amount,
    )


def _attempt(row: AttemptRow) -> AttemptTold:
    return AttemptTold(
        number=row.number,
        target=row.target,
        model=row.model,
        ms=row.ended_ms - row.began_ms,
        outcome=row.outcome,
        cost_nano=row.cost_nano,
    )


def _content(record: Record) -> ContentTold | None:
    content = record.content
    if content is None:
        return None
    reply = None if content.reply is None else Raw(content.reply)
    return ContentTold(request=_body(content.request), reply=reply, expires_at=content.expires_at)


def _body(body: bytes) -> Raw | str:
    """A body was accepted as JSON when it came; whatever it is, the story around it stays JSON."""
    try:
        json.decode(body)
    except ValueError:
        return body.decode(errors="replace")
    return Raw(body)
