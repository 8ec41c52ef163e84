"""Whether what was said is kept with its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from sqlalchemy import Connection

from chatport.policy.keys import Caller
from chatport.store.contents import ContentRow, keeping

DAY: Final = 86_400

Keeping: TypeAlias = Callable[[bytes | None], Callable[[Connection], None]]
"""Of the answer's JSON, None where there is no whole one: what its settlement does besides."""


class Contents:
    """Off unless the configuration, or the key, says otherwise. `days`: how long it is kept."""

    def __init__(self, *, keeps: bool = False, days: int = 30) -> None:
        self._keeps = keeps
        self._days = days

    def of(self, caller: Caller, request_id: str, body: bytes, now: float) -> Keeping | None:
        """What keeps a request and its answer; None where nothing is kept. `now`: Unix seconds."""
        if not (self._keeps if caller.keeps_content is None else caller.keeps_content):
            return None
        expires_at = int(now) + self._days * DAY
        return lambda reply: keeping(
            ContentRow(request_id=request_id, request=body, reply=reply, expires_at=expires_at)
        )
