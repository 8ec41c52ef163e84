"""Idempotency keys (contract.md §3): a repeated request gets the reply that the first one got.

Requests with the same name from the same caller go one at a time, first come first served. Each, when its turn comes,
looks whether a reply was kept meanwhile: then that is its answer; otherwise (it is the first, or those before it
failed or were cancelled) it does the work itself. Only whole, successful replies are kept, so a repeat of a failure
tries again. The turns are this process's; the replies are in the store, for every process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msgspec import Struct

from chatport.store.database import Work
from chatport.store.errors import StoreUnavailable
from chatport.store.replays import ReplayRow, ReplayRows, keeping
from chatport.wire.errors import InvalidRequest

LONGEST_NAME = 255
"""Characters of an Idempotency-Key (contract.md §3)."""

KEPT_FOR = 24 * 3600
"""Seconds that a reply is kept (contract.md §3)."""

LARGEST_REPLY = 16 * 2**20
"""Bytes of a reply that is kept; a larger one is sent but not kept, and its repeats are done anew."""

POSTING_WAIT = 2.0
"""Seconds that a repeat waits for a reply that was made and that the store has not taken yet."""


class Replay(Struct, frozen=True):
    """A reply as it was sent, byte for byte."""

    content_type: str
    body: bytes


class Repeatable(Struct, frozen=True):
    """A request under the name it may be repeated by; digests are SHA-256."""

    caller_id: str
    name_digest: bytes
    digest: bytes
    at: int
    """Unix seconds."""

    @property
    def place(self) -> tuple[str, bytes]:
        """What requests that are repeats of each other have in common."""
        return self.caller_id, self.name_digest


class Turn:
    """The requests of one name that are under way: who holds the lock works, the others wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.members = 0
        self.working_on: bytes | None = None
        """Digest of the request that its holder found no reply for."""
        self.posting: asyncio.Future[None] | None = None
        """Done when the reply that was made is in the store: until then nobody may make another."""
        self.patience = 0.0
        """Loop time until which who comes meanwhile waits for that."""


class Claim:
    """One request's turn. `replay` is the reply to repeat; where that is None, the holder does the work."""

    def __init__(self, request: Repeatable, turn: Turn, rows: ReplayRows, leave: Callable[[], None]) -> None:
        self.replay: Replay | None = None
        self._request = request
        self._turn = turn
        self._rows = rows
        self._leave = leave
        self._has_turn = True
        self._posting: asyncio.Future[None] | None = None

    def keep(self, reply: Replay) -> Work[None]:
        """What makes a successful reply the answer to every repeat, those that wait included, when it is written;
        `posted` must be called then, or when it never will be."""
        loop = asyncio.get_running_loop()
        self._posting = self._turn.posting = loop.create_future()
        self._turn.patience = loop.time() + POSTING_WAIT
        return keeping(
            ReplayRow(
                key_id=self._request.caller_id,
                name_digest=self._request.name_digest,
                request_digest=self._request.digest,
                content_type=reply.content_type,
                body=reply.body,
                created_at=self._request.at,
            )
        )

    def posted(self) -> None:
        """What `keep` has given is written, or never will be. Idempotent."""
        if self._posting is not None and not self._posting.done():
            self._posting.set_result(None)
            self._turn.posting = None
            if self._has_turn:
                self.release()  # who waits need not wait for its delivery
            else:
                self._leave()

    def release(self) -> None:
        """Lets the next one have its turn. Idempotent."""
        if self._has_turn:
            self._has_turn = False
            self._turn.working_on = None
            self._turn.lock.release()
            if self._posting is None or self._posting.done():
                self._leave()

    async def look_up(self) -> None:
        """Looks for a reply kept meanwhile; without one, everybody learns what the turn is spent on."""
        request, oldest = self._request, self._request.at - KEPT_FOR
        await self._settled()
        row = await self._rows.get(request.caller_id, request.name_digest, after=oldest)
        if row is None:
            self._turn.working_on = request.digest
            return
        self.release()
        if row.request_digest != request.digest:
            raise _conflict()
        self.replay = Replay(row.content_type, row.body)

    async def _settled(self) -> None:
        """Waits until what was made before is written."""
        if self._turn.posting is None:
            return
        left = self._turn.patience - asyncio.get_running_loop().time()
        await asyncio.wait({self._turn.posting}, timeout=max(0.0, left))
        if self._turn.posting is not None:
            raise StoreUnavailable("the reply to this Idempotency-Key is not written yet")


class Replays:
    """The turns of this process over the replies in the store."""

    def __init__(self, rows: ReplayRows) -> None:
        self._rows = rows
        self._turns: dict[tuple[str, bytes], Turn] = {}

    @asynccontextmanager
    async def claim(self, caller_id: str, key: str, body: bytes, now: float) -> AsyncIterator[Claim]:
        """Waits for the request's turn. `key`: the header's value; `now`: Unix seconds. Leaving without `keep` passes
        the turn on.

        Raises InvalidRequest: a name that can't be one, or one used for another body already (`idempotency_conflict`);
        StoreUnavailable.
        """
        request = Repeatable(caller_id, _digest(_checked(key)), _digest(body), int(now))
        turn = await self._take_turn(request)
        claim = Claim(request, turn, self._rows, lambda: self._leave(request, turn))
        try:
            await claim.look_up()
            yield claim
        finally:
            claim.release()

    async def prune(self, now: float) -> int:
        """Removes the replies that are older than they are kept; returns how many."""
        return await self._rows.prune(int(now) - KEPT_FOR)

    async def _take_turn(self, request: Repeatable) -> Turn:
        """The turn of the request's name, its lock held."""
        turn = self._turns.setdefault(request.place, Turn())
        if turn.working_on not in {None, request.digest}:
            raise _conflict()
        turn.members += 1
        try:
            await turn.lock.acquire()
        except asyncio.CancelledError:
            self._leave(request, turn)
            raise
        return turn

    def _leave(self, request: Repeatable, turn: Turn) -> None:
        turn.members -= 1
        if turn.members == 0:
            del self._turns[request.place]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _checked(key: str) -> bytes:
    """The header's value, if it has a length that it may have."""
    if not 1 <= len(key) <= LONGEST_NAME:
        raise InvalidRequest(
            f"Invalid 'Idempotency-Key' header: expected 1 to {LONGEST_NAME} characters, but got {len(key)}.",
            code="invalid_value",
        )
    return key.encode(errors="surrogatepass")


def _conflict() -> InvalidRequest:
    return InvalidRequest(
        "This Idempotency-Key was used with another request body before. Send the same body, or use a new key.",
        code="idempotency_conflict",
    )
