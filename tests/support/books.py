"""The account as its tables say it, and what must be true of them whatever has happened."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from msgspec import json

from chatport.store import open_store
from chatport.store.account import HoldAccount
from support.accounts import tables
from support.counted import PROMPT, Counted, Served
from support.crowd import Crowd, Had

WHOLE = {"complete", "cut"}

REFUSED = {401, 403, 429}


@dataclass
class Books:
    """All of it at one moment."""

    postings: dict[str, Any]
    """By request."""
    holds: dict[str, Any]
    balances: list[Any]
    entries: list[Any]
    failed: set[str]
    """Requests of which an attempt has failed."""

    def check_sums(self) -> None:
        """What `ledger verify` recomputes: at every instant."""
        posted: defaultdict[tuple[str, int], int] = defaultdict(int)
        held: defaultdict[tuple[str, int], int] = defaultdict(int)
        for entry in self.entries:
            posted[entry.budget_id, entry.period] += entry.amount
        for row in self.holds.values():
            for one in json.decode(row.account, type=HoldAccount).held:
                held[one.place] += one.amount
        for balance in self.balances:
            place = balance.budget_id, balance.period
            assert (balance.posted, balance.held) == (posted[place], held[place]), place
        assert {place for place, amount in [*posted.items(), *held.items()] if amount} <= {
            (balance.budget_id, balance.period) for balance in self.balances
        }

    @property
    def checkpoints(self) -> dict[str, int]:
        """How far each request under way is known to be."""
        return {request_id: row.completion_tokens for request_id, row in self.holds.items()}


async def books(store_url: str) -> Books:
    """Reads them; each request is posted once, or not at all."""
    async with open_store(store_url) as store:
        found = await tables(store, "postings", "holds", "balances", "entries", "attempts")
    postings = {row.id: row for row in found["postings"]}
    assert len(postings) == len(found["postings"]), "a request was posted twice"
    holds = {row.request_id: row for row in found["holds"]}
    assert not set(postings) & set(holds), "a request is held that was posted"
    read = Books(postings, holds, found["balances"], found["entries"], {row.request_id for row in found["attempts"]})
    read.check_sums()
    return read


async def settled(store_url: str, within: float = 15.0) -> Books:
    """The account once nothing is held any more."""
    async with asyncio.timeout(within):
        while (read := await books(store_url)).holds:
            await asyncio.sleep(0.1)
    return read


def compare(read: Books, upstream: Counted, crowd: Crowd, checkpoints: dict[str, int]) -> None:
    """The account with what the upstream has made, and what the clients had. `checkpoints`: of requests that were under
    way when their server was killed."""
    for request_id, served in upstream.served.items():
        assert request_id in read.postings, f"{request_id} was served, and is not posted: {served}"
    for request_id, posting in read.postings.items():
        _compare(posting, upstream.served.get(request_id, Served()), checkpoints)
    for had in crowd.had:
        posting = read.postings.get(had.request_id)
        if had.replayed:
            assert posting is None, f"{had} has cost {posting}"
        elif had.status in REFUSED and posting is not None:
            # It was refused when its first target had failed already: then there is a posting, of nothing.
            spent = (posting.prompt_tokens, posting.completion_tokens, posting.charge_nano)
            assert (posting.ending, spent) == ("upstream_error", (0, 0, 0)), f"{had} has cost {posting}"
            assert had.request_id in read.failed, f"{had} is posted, though it met no target"
        elif had.status == 200:
            _had(posting, had)


def _compare(posting: Any, served: Served, checkpoints: dict[str, int]) -> None:
    where = f"{posting.id} {posting.ending}: {posting.completion_tokens} tokens, {served}"
    assert posting.completion_tokens <= served.made, where
    match posting.ending:
        case "complete":
            assert served.whole, where
            assert posting.completion_tokens == served.made, where
            assert posting.prompt_tokens == PROMPT or posting.counted_by == "estimate", where
        case "crash":
            assert posting.completion_tokens == checkpoints[posting.id], where
        case "refused":
            assert served.made == 0, where
            assert posting.prompt_tokens == 0, where


def _had(posting: Any, had: Had) -> None:
    """What one client had, at least, was posted; but a crash may lose what was made since its last checkpoint."""
    assert posting is not None, f"{had} is not posted"
    where = f"{had} of {posting.ending}: {posting.completion_tokens}"
    if had.whole:
        assert posting.ending in WHOLE, where
    if posting.ending != "crash":
        assert had.words <= posting.completion_tokens, where
