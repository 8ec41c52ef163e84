"""What tokens cost. Integers only: pico-dollars a token, nano-dollars a posting."""

from __future__ import annotations

from msgspec import Struct

from chatport.wire.chat import Usage


class Rates(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Pico-dollars per token, and per request."""

    prompt: int = 0
    completion: int = 0
    request: int = 0


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
    def of(cls, usage: Usage) -> Tokens:
        """As a reply says it."""
        return cls(prompt=usage.prompt_tokens, completion=usage.completion_tokens)


def cost_pico(rates: Rates, tokens: Tokens) -> int:
    """What the upstream charges, in pico-dollars."""
    return rates.prompt * tokens.prompt + rates.completion * tokens.completion + rates.request


def nano(pico: int) -> int:
    """Pico-dollars as whole nano-dollars, rounded up."""
    return -(-pico // 1000)


def charge_nano(cost: int, factor_ppm: int) -> int:
    """What the key pays for a cost in pico-dollars, in nano-dollars, rounded up once."""
    return -(-cost * factor_ppm // (1000 * 1_000_000))


def most(rates: Rates) -> tuple[int, int, int]:
    """The most that a token of the prompt, one of the output, and the request by itself can cost."""
    return rates.prompt, rates.completion, rates.request


class Prices:
    """Every model's price, by its id."""

    def __init__(self) -> None:
        self.known: dict[str, Price] = {}

    async def load(self) -> None:
        """Takes every price into memory."""

    def at(self, model: str, now: float) -> Price | None:
        """The price in force. `now`: Unix seconds."""
        return self.known.get(model)
