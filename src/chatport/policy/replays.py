"""Idempotency keys (contract.md §3): a repeated request gets the reply that the first one got.

Requests with the same name from the same caller go one at a time, first come first served. Each, when its turn comes,
looks whether a reply was kept meanwhile: then that is its answer; otherwise (it is the first, or those before it
failed or were cancelled) it does the work itself. Only whole, successful replies are kept, so a repeat of a failure
tries again. The turns are this process's; the replies are in the store, for every process.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from chatport.store.replays import ReplayRow, ReplayRows
from chatport.wire.errors import InvalidRequest

LONGEST_NAME = 255
"""Characters of an Idempotency-Key (contract.md §3)."""

KEPT_FOR = 24 * 3600
"""Seconds that a reply is kept (contract.md §3)."""

LARGEST_REPLY = 16 * 2**20
"""Bytes of a reply that is kept; a larger one is sent but not kept, and its repeats are done anew."""


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

    def end(self) -> None:
        self.working_on = None
        self.lock.release()


class Claim:
    """One request's turn. `replay` is the reply to repeat; where that is None, the holder does the work."""

    def __init__(self, request: Repeatable, turn: Turn, rows: ReplayRows) -> None:
        self.replay: Replay | None = None
        self._request = request
        self._turn: Turn | None = turn
        self._rows = rows

    async def keep(self, content_type: str, body: bytes) -> None:
        """Makes a successful reply the answer to every repeat, those that wait included. Raises StoreUnavailable."""
        if len(body) > LARGEST_REPLY:
            return
        row = ReplayRow(
            key_id=self._request.caller_id,
            name_digest=self._request.name_digest,
            request_digest=self._request.digest,
            content_type=content_type,
            body=body,
            created_at=self._request.at,
        )
        writing = asyncio.ensure_future(self._rows.put(row))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # it is carried through, and who waits must find it there
            raise
        self.release()

    def release(self) -> None:
        """Lets the next one have its turn. Idempotent."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    async def look_up(self) -> None:
        """Looks for a reply kept meanwhile; without one, everybody learns what the turn is spent on."""
        request, oldest = self._request, self._request.at - KEPT_FOR
        row = await self._rows.get(request.caller_id, request.name_digest, after=oldest)
        if row is None:
            if self._turn is not None:
                self._turn.working_on = request.digest
            return
        self.release()
        if row.request_digest != request.digest:
            raise _conflict()
        self.replay = Replay(row.content_type, row.body)


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
        async with self._turn(request) as turn:
            claim = Claim(request, turn, self._rows)
            try:
                await claim.look_up()
                yield claim
            finally:
                claim.release()

    async def prune(self, now: float) -> int:
        """Removes the replies that are older than they are kept; returns how many."""
        return await self._rows.prune(int(now) - KEPT_FOR)

    @asynccontextmanager
    async def _turn(self, request: Repeatable) -> AsyncIterator[Turn]:
        """The turn of the request's name, its lock held."""
        turn = self._turns.setdefault(request.place, Turn())
        if turn.working_on not in {None, request.digest}:
            raise _conflict()
        turn.members += 1
        try:
            await turn.lock.acquire()
            yield turn
        finally:
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
