"""What tokens cost. Pure, and integers only: pico-dollars a token, nano-dollars a posting.

Sums are exact; nothing is rounded but once, up, at the end: `nano` for what the upstream charges, `charge_nano` for
what the key pays. 0.0375 USD per million tokens is 37,500 pico-dollars a token.
"""

from __future__ import annotations

from typing import Final, Self

from msgspec import Struct

from chatport.wire.chat import Usage

PICO_PER_NANO: Final = 1000
MILLION: Final = 1_000_000


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


class Rates(TokenRates, frozen=True, kw_only=True, omit_defaults=True):
    """What a model's tokens cost, and a request by itself, in pico-dollars."""

    request: int = 0
    tiers: tuple[Tier, ...] = ()
    """In any order; the highest that a prompt is above holds."""


class Price(Struct, frozen=True, kw_only=True):
    """One version of a model's price; postings name its id."""

    id: str
    model: str
    rates: Rates


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
            audio_prompt=prompt.audio_tokens,
            completion=usage.completion_tokens,
            reasoning=completion.reasoning_tokens,
            audio_completion=completion.audio_tokens,
        ).clamped

    @property
    def clamped(self) -> Self:
        """Without nonsense: nothing negative, and no more tokens of all kinds than there are. Where kinds say more,
        as cached audio does that is counted twice, the first in the order of the fields has them."""
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
    used = tokens.clamped
    at = rates_at(rates, used.prompt)
    prompt = _side(
        used.prompt,
        at.prompt,
        (used.cached, at.cached),
        (used.cache_write, at.cache_write),
        (used.audio_prompt, at.audio_prompt),
        (used.image, at.image),
    )
    completion = _side(
        used.completion,
        at.completion,
        (used.reasoning, at.reasoning),
        (used.audio_completion, at.audio_completion),
    )
    return prompt + completion + rates.request


def rates_at(rates: Rates, prompt: int) -> TokenRates:
    """What tokens cost in a request with so many of them in its prompt."""
    above = [tier for tier in rates.tiers if prompt > tier.above]
    return max(above, key=lambda tier: tier.above) if above else rates


def nano(pico: int) -> int:
    """Pico-dollars as whole nano-dollars, rounded up."""
    return -(-pico // PICO_PER_NANO)


def charge_nano(cost: int, factor_ppm: int) -> int:
    """What the key pays for a cost in pico-dollars, in nano-dollars, rounded up once. `factor_ppm`: millionths."""
    return -(-cost * factor_ppm // (PICO_PER_NANO * MILLION))


def most(rates: Rates) -> tuple[int, int, int]:
    """The most that a token of the prompt, one of the output, and the request by itself can cost, in pico-dollars."""
    every = (rates, *rates.tiers)
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


def _side(count: int, plain: int, *kinds: tuple[int, int | None]) -> int:
    """So many tokens at the plain rate, but for those of a kind that has its own."""
    return plain * count + sum(number * (rate - plain) for number, rate in kinds if rate is not None)


class Prices:
    """Every model's price, by its id."""

    def __init__(self) -> None:
        self.known: dict[str, Price] = {}

    async def load(self) -> None:
        """Takes every price into memory."""

    def at(self, model: str, now: float) -> Price | None:
        """The price in force. `now`: Unix seconds."""
        return self.known.get(model)
