"""genai-prices, read: what its list says of a model, as rows of ours.

Its units are ours: USD per million tokens, prices that begin at midnight UTC, hours of the day, and tiers that make a
whole request dearer. What it has beyond (batches, an hour's cache, web searches, video) no request here is billed by.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import Any, Final

from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from chatport.policy.prices import Hours, Rates, Tier, new_row
from chatport.store.prices import LISTED, PriceRow

KINDS: Final = {
    "prompt": "input_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "audio_prompt": "input_audio_mtok",
    "image": "input_image_mtok",
    "completion": "output_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_completion": "output_audio_mtok",
}
"""Ours, and what the list calls their price."""

PICO_PER_TOKEN: Final = 10**6
"""In a USD per million tokens."""

PICO_PER_REQUEST: Final = 10**9
"""In a USD per thousand requests."""

LIST: Final = DataSnapshot(providers=providers, from_auto_update=False)


def source() -> str:
    """The list with its version."""
    return f"{LISTED} {version(LISTED)}"


def everything() -> Iterator[str]:
    """Every entry of the list that could be a chat model's."""
    for provider in LIST.providers:
        yield from entries_of(provider.id)


def entries_of(provider_id: str) -> Iterator[str]:
    """PROVIDER/MODEL of all that a provider offers, under each name that the list spells out."""
    provider = next((each for each in LIST.providers if each.id == provider_id), None)
    if provider is None:
        return
    lent = [each for each in LIST.providers if each.id in (provider.fallback_model_providers or ())]
    names = {name: None for each in (provider, *lent) for model in each.models for name in _names(model)}
    for name in names:
        if (found := _found(f"{provider_id}/{name}")) is not None and _is_chat(found):
            yield f"{provider_id}/{name}"


def rows_of(entry: str, now: float) -> list[PriceRow]:
    """The price in force, and those that are to come; nothing where the list has none by the token. `now`: Unix
    seconds."""
    model = _found(entry)
    if model is None or not _is_chat(model):
        return []
    conditions = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    steps = [(start, _from(conditions, start)) for start in sorted({0, *map(_start, conditions)})]
    begun = max(index for index, (start, _) in enumerate(steps) if start <= now)
    name = source()
    return [new_row(entry, name, rates, now, start) for start, rates in steps[begun:]]


def _found(entry: str) -> ModelInfo | None:
    provider_id, _, name = entry.partition("/")
    try:
        _, model = LIST.find_provider_model(name, None, provider_id, None)
    except LookupError:
        return None
    return model


def _names(model: ModelInfo) -> Iterator[str]:
    """Its id, and what else it is called word for word."""
    yield model.id
    clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
    yield from (clause.equals for clause in clauses if isinstance(clause, ClauseEquals))


def _is_chat(model: ModelInfo) -> bool:
    """Whether tokens in and tokens out have a price: others are embeddings, images, or billed by the second."""
    prices = [each.prices for each in model.prices] if isinstance(model.prices, list) else [model.prices]
    return bool(prices) and all(each.input_mtok is not None and each.output_mtok is not None for each in prices)


def _start(condition: ConditionalPrice) -> int:
    """Unix seconds; 0 for one that has always been."""
    if not isinstance(condition.constraint, StartDateConstraint):
        return 0
    return int(datetime.combine(condition.constraint.start_date, time(), UTC).timestamp())


def _from(conditions: list[ConditionalPrice], start: int) -> Rates:
    """The rates from a day on: of the last entry that holds then, and of the hours that come after it in the list."""
    dated = [
        (index, each)
        for index, each in enumerate(conditions)
        if not isinstance(each.constraint, TimeOfDateConstraint) and _start(each) <= start
    ]
    at, chosen = dated[-1] if dated else (0, conditions[0])
    hours = tuple(
        Hours(begins=_second(each.constraint.start_time), ends=_second(each.constraint.end_time), **_kinds(each.prices))
        for each in conditions[at + 1 :]
        if isinstance(each.constraint, TimeOfDateConstraint)
    )
    tiers = tuple(Tier(above=above, **_kinds(chosen.prices, above)) for above in _thresholds(chosen.prices))
    request = _pico(chosen.prices.requests_kcount, PICO_PER_REQUEST) or 0
    return Rates(request=request, tiers=tiers, hours=hours, **_kinds(chosen.prices))


def _second(of_day: time) -> int:
    """Of the day, UTC."""
    offset = of_day.utcoffset()
    seconds = of_day.hour * 3600 + of_day.minute * 60 + of_day.second
    return int(seconds - (offset.total_seconds() if offset else 0)) % 86_400


def _thresholds(price: ModelPrice) -> list[int]:
    values = [getattr(price, name) for name in KINDS.values()]
    return sorted({tier.start for value in values if isinstance(value, TieredPrices) for tier in value.tiers})


def _kinds(price: ModelPrice, above: int = -1) -> dict[str, Any]:
    """Pico-dollars by kind, for prompts of more than `above` tokens."""
    found = {kind: _pico(_tiered(getattr(price, name), above), PICO_PER_TOKEN) for kind, name in KINDS.items()}
    return {kind: pico for kind, pico in found.items() if pico is not None}


def _tiered(value: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(value, TieredPrices):
        return value
    return next((tier.price for tier in reversed(value.tiers) if tier.start <= above), value.base)


def _pico(usd: object, unit: int) -> int | None:
    """Rounded up, where the list is finer than a pico-dollar."""
    if not isinstance(usd, Decimal):
        return None
    numerator, denominator = usd.as_integer_ratio()
    return -(-numerator * unit // denominator)
