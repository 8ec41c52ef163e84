"""What settings are made of: types with their bounds, and the words for them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

KIB, MIB = 1 << 10, 1 << 20


def about(description: str) -> Meta:
    """What a setting means, in one sentence. It stands in a table of `docs/configuration.md`: no `|` in it."""
    return Meta(description=description)


def matching(pattern: str, allowed: str, *, secret: bool = False) -> Meta:
    """Text of one form, and the words for that form in an error's sentence. A secret is never quoted."""
    return Meta(pattern=pattern, extra={"allowed": allowed, "secret": secret})


Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
Switch = Annotated[bool, Meta(extra={"allowed": "true or false"})]
Word = Annotated[str, Meta(min_length=1)]
PROXY_WORDS = 'an address such as "127.0.0.1" or "::1", a network such as "10.0.0.0/8", or "unix"'
TrustedProxy = Annotated[str, Meta(extra={"allowed": PROXY_WORDS})]
Name = Annotated[str, matching(r"^[^\s\x00-\x1f\x7f]{1,128}\Z", "1 to 128 characters without white space")]
ModelPath = Annotated[str, matching(r".", "a name that `chatport models list` shows, or a .gguf file")]
StoreUrl = Annotated[
    str,
    # It may hold a password.
    matching(r"^(sqlite|postgresql)://.", '"sqlite:///PATH" or "postgresql://USER@HOST/DATABASE"', secret=True),
]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""
