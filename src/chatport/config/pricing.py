"""What a model's tokens cost, as the file says it: US dollars, exact to the pico-dollar."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from msgspec import Meta

from chatport.config.terms import Settings, about, matching

HIGHEST: Final = 1_000_000
"""USD: more is a mistake."""

TOKEN_DIGITS: Final = 6
"""After the point of USD per million tokens: the last is a pico-dollar a token."""

REQUEST_DIGITS: Final = 12
"""After the point of USD: the last is a pico-dollar."""

PER_TOKEN: Final = f"USD per million tokens: a number, or text, from 0 to {HIGHEST} with up to {TOKEN_DIGITS} decimals"
PER_REQUEST: Final = f"USD: a number, or text, from 0 to {HIGHEST} with up to {REQUEST_DIGITS} decimals"

TokenPrice = Annotated[Decimal, Meta(extra={"allowed": PER_TOKEN})]
RequestPrice = Annotated[Decimal, Meta(extra={"allowed": PER_REQUEST})]
ListedModel = Annotated[str, matching(r"^[^\s/]+/\S+\Z", "PROVIDER/MODEL, as `chatport prices list` shows it")]


class PriceConfig(Settings, frozen=True):
    """What the model costs, instead of what a list of prices says. A kind that is not set costs what its side costs."""

    prompt: Annotated[TokenPrice, about("Tokens of the prompt.")]
    completion: Annotated[TokenPrice, about("Tokens of the answer.")]
    cached: Annotated[TokenPrice | None, about("Tokens of the prompt that the upstream had in its cache.")] = None
    cache_write: Annotated[TokenPrice | None, about("Tokens of the prompt that it put there.")] = None
    audio_prompt: Annotated[TokenPrice | None, about("Tokens of audio in the prompt.")] = None
    image: Annotated[TokenPrice | None, about("Tokens of images in the prompt.")] = None
    reasoning: Annotated[TokenPrice | None, about("Tokens of the answer that were thoughts.")] = None
    audio_completion: Annotated[TokenPrice | None, about("Tokens of audio in the answer.")] = None
    request: Annotated[RequestPrice | None, about("Each request, besides its tokens.")] = None

    @property
    def pico(self) -> dict[str, int]:
        """Pico-dollars, per token and per request, of what is set."""
        set_here = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: scaled(usd, REQUEST_DIGITS if name == "request" else TOKEN_DIGITS)
            for name, usd in set_here.items()
            if usd is not None
        }


def scaled(usd: Decimal, decimals: int) -> int:
    """The amount in units of its last decimal: USD per million tokens with 6 become pico-dollars a token. Raises
    ValueError where it has more, is negative, not finite or too high."""
    if not (usd.is_finite() and 0 <= usd <= HIGHEST):
        raise ValueError(f"{usd} is not from 0 to {HIGHEST}")
    _, digits, exponent = usd.as_tuple()
    number = int("".join(map(str, digits)))
    shift = int(exponent) + decimals
    if number == 0:
        return 0
    if shift >= 0:
        return number * int(10**shift)
    whole, rest = (0, number) if -shift > len(digits) else divmod(number, int(10**-shift))
    if rest:
        raise ValueError(f"{usd} has more than {decimals} decimals")
    return whole
