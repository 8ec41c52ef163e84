"""What is kept of a request: what was said, where that is switched on; the completion, where its client wants it stored
(contract.md §14); the reply, for repeats of its Idempotency-Key.

All of it is written in the transaction that posts the request, so that what was paid for is there, and what is there
was paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct, json, structs

from chatport.policy.keys import Caller
from chatport.policy.replays import LARGEST_REPLY, Claim, Replay
from chatport.policy.stored import saving
from chatport.store import contents
from chatport.store.contents import ContentRow
from chatport.store.database import Work
from chatport.wire.chat import ChatCompletion, ChatRequest

DAY: Final = 86_400


class Kept(Struct):
    """What is to be kept of one request, filled in on the way."""

    _content: ContentRow | None = None
    _storing: Callable[[ChatCompletion], Work[None]] | None = None
    claim: Claim | None = None
    """The turn of its Idempotency-Key, where it has one."""
    _stored: Work[None] | None = None
    _reply: Replay | None = None

    def __repr__(self) -> str:
        """Nothing of what is kept: it belongs in no log."""
        return "Kept()"

    @property
    def wants_answer(self) -> bool:
        """Whether the whole answer is kept: a stream is then to be put together."""
        return self._content is not None or self._storing is not None

    def answer(self, completion: ChatCompletion) -> None:
        """The whole answer."""
        if self._content is not None:
            self._content = structs.replace(self._content, reply=json.encode(completion))
        if self._storing is not None:
            self._stored = self._storing(completion)

    def reply(self, content_type: bytes, body: bytes) -> None:
        """The answer as it is sent, byte for byte."""
        if self.claim is not None and len(body) <= LARGEST_REPLY:
            self._reply = Replay(content_type.decode(), body)

    def works(self) -> tuple[Work[None], ...]:
        """What the settlement is to do besides; `posted` must follow."""
        works = [] if self._content is None else [contents.keeping(self._content)]
        if self._stored is not None:
            works.append(self._stored)
        if self.claim is not None and self._reply is not None:
            works.append(self.claim.keep(self._reply))
        return tuple(works)

    def posted(self) -> None:
        """All of that is there now, or never will be."""
        if self.claim is not None:
            self.claim.posted()


class Keeping:
    """What was said is off unless the configuration, or the key, says otherwise. `days`: how long it is kept."""

    def __init__(self, *, contents: bool = False, days: int = 30) -> None:
        self._contents = contents
        self._days = days

    def of(self, caller: Caller, request: ChatRequest, request_id: str, body: bytes, now: float) -> Kept:
        """What is to be kept of a request. `body`: as received; `now`: Unix seconds."""
        content = None
        if self._contents if caller.keeps_content is None else caller.keeps_content:
            expires_at = int(now) + self._days * DAY
            content = ContentRow(request_id=request_id, request=body, reply=None, expires_at=expires_at)
        return Kept(content, (lambda completion: saving(caller, completion, request)) if request.store else None)
