"""Limits as the file gives them."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from msgspec import Meta

from chatport.config.terms import Settings, about, matching

Scope = Annotated[
    str,
    matching(
        r"^(key|owner|model|user):[^\x00-\x1f\x7f]{1,128}\Z",
        '"key:ID", "owner:NAME", "model:ID" or "user:KEY_ID", or "*" in place of the name',
    ),
]
MOST = 1_000_000_000_000
"""Of a limit: requests and tokens are summed up in floats, exactly."""

Amount = Annotated[int, Meta(ge=1, le=MOST)]


class LimitConfig(Settings, frozen=True):
    """How much a key, an owner, a model or each end user of a key may ask for; [limits.md](limits.md) explains it."""

    scope: Annotated[
        Scope,
        about(
            "Whose limit it is. `user:KEY_ID` is each end user of that key. With `*` it is for each one that has no "
            "limit of its own."
        ),
    ]
    rpm: Annotated[Amount | None, about("Requests per minute, and as many at once.")] = None
    rph: Annotated[Amount | None, about("Requests per hour.")] = None
    rpd: Annotated[Amount | None, about("Requests per day.")] = None
    tpm: Annotated[Amount | None, about("Tokens per minute, of prompts and answers together.")] = None
    tph: Annotated[Amount | None, about("Tokens per hour.")] = None
    tpd: Annotated[Amount | None, about("Tokens per day.")] = None
    concurrency: Annotated[Amount | None, about("Requests at the same time.")] = None
    mode: Annotated[
        Literal["enforce", "report"],
        about('"report" refuses nobody: it logs and counts what it would have refused.'),
    ] = "enforce"

    @property
    def subject(self) -> tuple[Literal["key", "owner", "model", "user"], str]:
        """The two halves of `scope`."""
        kind, _, subject = self.scope.partition(":")
        return cast("Literal['key', 'owner', 'model', 'user']", kind), subject

    @property
    def amounts(self) -> dict[str, int]:
        """The limits that are set, by their names."""
        found = {name: getattr(self, name) for name in AMOUNTS}
        return {name: amount for name, amount in found.items() if amount is not None}


AMOUNTS = tuple(name for name in LimitConfig.__struct_fields__ if name not in {"scope", "mode"})
"""The names of the settings that are limits."""
