"""What tokens cost, and which price holds. Integers only: pico-dollars a token, nano-dollars a posting.

Sums are exact; nothing is rounded but once, up, at the end: `nano` for what the upstream charges, `charge_nano` for
what the key pays. 0.0375 USD per million tokens is 37,500 pico-dollars a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, Self

from msgspec import Raw, Struct, json, structs

from chatport.store.prices import COMMAND, CONFIGURATION, EMBEDDED, LISTED, PriceRow, PriceRows, family, price_id
from chatport.wire.chat import Usage

PICO_PER_NANO: Final = 1000
MILLION: Final = 1_000_000
DAY: Final = 86_400

FAMILIES: Final = (CONFIGURATION, COMMAND, EMBEDDED, LISTED)
"""Sources, as they win over each other."""


class TokenRates(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Pico-dollars per token. A kind without a rate of its own costs what the others of its side cost: those of the
    prompt, or of the completion."""

    prompt: int = 0
    cached: int | None = None
    cache_write: int | None = None
    audio_prompt: int | None = None
    image: int | None = None
    completion: int = 0
    reasoning: int | None = None
    audio_completion: int | None = None

    @property
    def highest_prompt(self) -> int:
        """The most that a token of the prompt can cost."""
        return _highest(self.prompt, self.cached, self.cache_write, self.audio_prompt, self.image)

    @property
    def highest_output(self) -> int:
        """The most that a token of the completion can cost."""
        return _highest(self.completion, self.reasoning, self.audio_completion)


class Tier(TokenRates, frozen=True, kw_only=True, omit_defaults=True):
    """Rates of long prompts: where the prompt has more tokens, all tokens of the request cost this, those of the
    completion too. So providers bill, and so genai-prices means its tiers."""

    above: int
    """Tokens of the prompt, whatever their kind."""


class Hours(TokenRates, frozen=True, kw_only=True, omit_defaults=True):
    """Rates of a time of the day, in the place of the plain ones and their tiers."""

    begins: int
    """Seconds after midnight UTC."""
    ends: int
    """The same, not included; before `begins` where midnight is between them."""

    def hold(self, second: int) -> bool:
        """Whether they hold at a second of the day."""
        if self.ends < self.begins:
            return second >= self.begins or second < self.ends
        return self.begins <= second < self.ends


class Rates(TokenRates, frozen=True, kw_only=True, omit_defaults=True, cache_hash=True):
    """What a model's tokens cost, and a request by itself, in pico-dollars."""

    request: int = 0
    tiers: tuple[Tier, ...] = ()
    """In any order; the highest that a prompt is above holds."""
    hours: tuple[Hours, ...] = ()
    """The last one that holds wins. `Prices.at` has gone by them: the rates that it gives have none."""


class Price(Struct, frozen=True, kw_only=True):
    """One version of a model's price; postings name its id."""

    id: str
    model: str
    """Or the entry of a list."""
    rates: Rates
    source: str = CONFIGURATION
    effective_at: int = 0
    """Unix seconds."""


class Tokens(Struct, frozen=True, kw_only=True):
    """What a request used; those of a kind are among those of the prompt, or of the completion."""

    prompt: int = 0
    cached: int = 0
    cache_write: int = 0
    audio_prompt: int = 0
    image: int = 0
    completion: int = 0
    reasoning: int = 0
    audio_completion: int = 0

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """As a reply says it, clamped."""
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        return cls(
            prompt=usage.prompt_tokens,
            cached=prompt.cached_tokens,
            cache_write=prompt.cache_write_tokens or 0,
            audio_prompt=prompt.audio_tokens,
            image=prompt.image_tokens or 0,
            completion=usage.completion_tokens,
            reasoning=completion.reasoning_tokens,
            audio_completion=completion.audio_tokens,
        ).clamped()

    def is_plain(self) -> bool:
        """Whether no token is of a kind of its own."""
        return not (
            self.cached
            or self.cache_write
            or self.audio_prompt
            or self.image
            or self.reasoning
            or self.audio_completion
        )

    def clamped(self) -> Self:
        """Without nonsense: nothing negative, and no more tokens of all kinds than there are. Where kinds say more,
        as cached audio does that is counted twice, the first in the order of the fields has them."""
        if self.prompt >= 0 and self.completion >= 0 and self.is_plain():
            return self  # the ordinary case
        prompt, completion = max(0, self.prompt), max(0, self.completion)
        cached, cache_write, audio_prompt, image = _within(
            prompt, self.cached, self.cache_write, self.audio_prompt, self.image
        )
        reasoning, audio_completion = _within(completion, self.reasoning, self.audio_completion)
        return type(self)(
            prompt=prompt,
            cached=cached,
            cache_write=cache_write,
            audio_prompt=audio_prompt,
            image=image,
            completion=completion,
            reasoning=reasoning,
            audio_completion=audio_completion,
        )


def cost_pico(rates: Rates, tokens: Tokens) -> int:
    """What the upstream charges, in pico-dollars."""
    used = tokens.clamped()
    at = rates_at(rates, used.prompt)
    cost = used.prompt * at.prompt + used.completion * at.completion + rates.request
    if used.is_plain():
        return cost
    prompt = _beyond(
        at.prompt,
        (used.cached, at.cached),
        (used.cache_write, at.cache_write),
        (used.audio_prompt, at.audio_prompt),
        (used.image, at.image),
    )
    completion = _beyond(
        at.completion,
        (used.reasoning, at.reasoning),
        (used.audio_completion, at.audio_completion),
    )
    return cost + prompt + completion


def rates_at(rates: Rates, prompt: int) -> TokenRates:
    """What tokens cost in a request with so many of them in its prompt."""
    if not rates.tiers:
        return rates
    above = [tier for tier in rates.tiers if prompt > tier.above]
    return max(above, key=lambda tier: tier.above) if above else rates


def rates_of_day(rates: Rates, now: float) -> Rates:
    """The rates at this time of the day. `now`: Unix seconds."""
    second = int(now) % DAY
    holding = [hours for hours in rates.hours if hours.hold(second)]
    if not holding:
        return structs.replace(rates, hours=())
    plain = {name: getattr(holding[-1], name) for name in TokenRates.__struct_fields__}
    return Rates(request=rates.request, **plain)


def nano(pico: int) -> int:
    """Pico-dollars as whole nano-dollars, rounded up."""
    return -(-pico // PICO_PER_NANO)


def charge_nano(cost: int, factor_ppm: int) -> int:
    """What the key pays for a cost in pico-dollars, in nano-dollars, rounded up once. `factor_ppm`: millionths."""
    return -(-cost * factor_ppm // (PICO_PER_NANO * MILLION))


@lru_cache(maxsize=1024)
def most(rates: Rates) -> tuple[int, int, int]:
    """The most that a token of the prompt, one of the output, and the request by itself can cost, in pico-dollars."""
    every = (rates, *rates.tiers, *rates.hours)
    return max(each.highest_prompt for each in every), max(each.highest_output for each in every), rates.request


def _highest(plain: int, *kinds: int | None) -> int:
    return max([plain, *(rate for rate in kinds if rate is not None)])


def _within(whole: int, *parts: int) -> list[int]:
    """The parts, as far as the whole has room for them, one after the other."""
    fitting: list[int] = []
    for part in parts:
        fitting.append(min(max(0, part), whole))
        whole -= fitting[-1]
    return fitting


def _beyond(plain: int, *kinds: tuple[int, int | None]) -> int:
    """What tokens of a kind that has its own rate cost beyond the plain one."""
    return sum([number * (rate - plain) for number, rate in kinds if rate is not None])


# --- Which price holds ------------------------------------------------------------------------------------------------


class Configured(Struct, frozen=True, kw_only=True):
    """A price that the server was started with."""

    model: str
    source: str
    rates: Rates


class Prices:
    """Every price that is open, by the model or the entry of a list that it is for.

    For a model `configuration` wins over `command` (what `prices set` says), that over `embedded`; only then comes
    what a list says of its target. Of one source the newest that has begun holds.
    """

    def __init__(self, rows: PriceRows) -> None:
        self.rows = rows
        self.known: dict[str, tuple[Price, ...]] = {}
        self._adopted: tuple[PriceRow, ...] | None = None

    async def load(self) -> None:
        """Takes every price into memory. Raises StoreUnavailable."""
        found = await self.rows.open()
        if self._adopted is not None:
            # Another server on the same database may be configured otherwise; this one keeps to its own words.
            found = [*(row for row in found if not _is_ours(row)), *self._adopted]
        known: dict[str, list[Price]] = {}
        for row in sorted(found, key=_precedence):
            known.setdefault(row.model, []).append(price_of(row))
        self.known = {model: tuple(prices) for model, prices in known.items()}

    async def adopt(self, configured: Iterable[Configured], now: float) -> None:
        """Has these be the prices of the configuration: what changed is a new version, what is gone has ended. `now`:
        Unix seconds. Raises StoreUnavailable."""
        rows = [new_row(each.model, each.source, each.rates, now) for each in configured]
        done = await self.rows.replace(rows, _is_ours, int(now), "configuration")
        self._adopted = (*done.kept, *done.added)
        await self.load()

    def at(self, model: str, now: float, listed: str | None = None) -> Price | None:
        """The price in force, as it is at this time of the day; None where nobody has said any.

        `model`: its id; what is said of a family (`NAME/*`) holds for its models. `listed`: the target's entry in a
        list, or a word without a slash that stands for several models of our own. `now`: Unix seconds.
        """
        said = _begun(self.known.get(model, ()), now, lists=False)
        if said is None:
            said = self._at_large(model, now, listed)
        if said is None or not said.rates.hours:
            return said
        return structs.replace(said, rates=rates_of_day(said.rates, now))

    def _at_large(self, model: str, now: float, listed: str | None) -> Price | None:
        """What is said of it under another name than its own: of a family, and then by a list."""
        for name in _families(model):
            said = _begun(self.known.get(name, ()), now, lists=False)
            if said is not None:
                return said
        return None if listed is None else _begun(self.known.get(listed, ()), now, lists="/" in listed)


def new_row(model: str, source: str, rates: Rates, now: float, effective_at: int = 0) -> PriceRow:
    """A price as it is kept. `now`, `effective_at`: Unix seconds; 0: always."""
    return PriceRow(
        id=price_id(),
        model=model,
        source=source,
        rates=Raw(json.encode(rates)),
        effective_at=effective_at,
        created_at=int(now),
    )


def price_of(row: PriceRow) -> Price:
    rates = json.decode(row.rates, type=Rates)
    return Price(id=row.id, model=row.model, rates=rates, source=row.source, effective_at=row.effective_at)


def _is_ours(row: PriceRow) -> bool:
    """Whether it follows from what the server was started with."""
    return row.source in {CONFIGURATION, EMBEDDED}


def _precedence(row: PriceRow) -> tuple[int, int, int]:
    """What holds comes first, if it has begun."""
    return FAMILIES.index(family(row.source)), -row.effective_at, -row.created_at


def _begun(prices: Iterable[Price], now: float, *, lists: bool) -> Price | None:
    """The first that has begun. What a list calls a model is not what we do, though it may look the same."""
    for price in prices:
        if price.effective_at <= now and price.source.startswith(LISTED) is lists:
            return price
    return None


def _families(model: str) -> Iterator[str]:
    """Those that it may be of, the longest first."""
    while "/" in model:
        model = model.rpartition("/")[0]
        yield f"{model}/*"
