"""Fields that the API does not have, counted by who sends them: `[server] strict = "report"`, for those who migrate."""

from __future__ import annotations

import logging

from msgspec import Struct

from chatport.policy.keys import Caller
from chatport.wire.chat import ChatRequest, GivenRequest

MOST_ENTRIES = 10_000
"""Pairs of key and field that are counted; both are chosen by clients."""

NAME_LIMIT = 64
"""Characters of a field's name that are kept."""

log = logging.getLogger("chatport")


class UnknownField(Struct, frozen=True, kw_only=True):
    """A field that a key has sent, and how often since the server started."""

    key_id: str
    field: str
    count: int


class UnknownFields:
    """The counts. Requests that know the API cost one look at their type."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def note(self, caller: Caller, request: ChatRequest) -> None:
        """Counts the request's unknown fields, and logs each the first time."""
        if type(request) is not GivenRequest:
            return
        for name in request.unknown:
            entry = (caller.key_id, name[:NAME_LIMIT])
            if entry not in self._counts:
                if len(self._counts) >= MOST_ENTRIES:
                    return
                log.warning("key %s sends a field that the API does not have: %.64r", *entry)
            self._counts[entry] = self._counts.get(entry, 0) + 1

    def listing(self) -> list[UnknownField]:
        """Every count, by key and field."""
        return [UnknownField(key_id=key, field=name, count=n) for (key, name), n in sorted(self._counts.items())]
