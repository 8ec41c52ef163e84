"""Every way a request can end, at each kind of backend: what the client is told, and what is posted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chatport.store import Store, open_store
from support.accounts import rows
from support.counted import PROMPT, Counted, counted
from support.crowd import Crowd, Had, crowd
from support.lives import NewKey, Program, configured, living, prepared

LONG = 50
"""Words of a long answer, or more."""

FREE = NewKey("free")
NOTICED = 2.0
"""Seconds after which the server knows of a new budget; it promises one."""

SCRIPTED = f"""
[[models]]
id = "scripted"
backend = "scripted"
reply = {[f"{number:03} " for number in range(LONG)]}
delay_ms = 4

[[models]]
id = "broken"
backend = "scripted"
fail_status = 500
"""


class House:
    """A running program, and what it has posted."""

    def __init__(self, clients: Crowd, store: Store) -> None:
        self.clients = clients
        self.store = store

    async def ask(self, model: str, *, key: NewKey = FREE, **fields: Any) -> tuple[Had, Any]:
        """What a client had, and the posting of it."""
        had = await self.clients.ask(key, model=model, **{"seed": LONG, "temperature": 0, **fields})
        assert had is not None
        return had, await self.posted(had.request_id)

    async def posted(self, request_id: str) -> Any:
        """The posting, which is there before the answer's end, but a moment after a client has left."""
        for _ in range(100):
            for row in await rows(self.store, "postings"):
                if row.id == request_id:
                    return row
            await asyncio.sleep(0.02)
        raise AssertionError(f"{request_id} is not posted")

    async def limit(self, key: NewKey, tokens: int) -> None:
        """Gives the key a budget."""
        await NewKey(key.id.removeprefix("key_"), amount=tokens).set_budget(self.store)

    async def left_before(self, key: NewKey, model: str, **fields: Any) -> Any:
        """The posting of a client that left a plain request before there was an answer."""
        known = {row.id for row in await rows(self.store, "postings")}
        task = asyncio.create_task(self.clients.ask(key, model=model, seed=LONG, stream=False, **fields))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait({task})
        for _ in range(100):
            for row in await rows(self.store, "postings"):
                if row.id not in known:
                    return row
            await asyncio.sleep(0.02)
        raise AssertionError("it is not posted")


LIMITED, CUT, NONE = NewKey("limited"), NewKey("cut"), NewKey("none")


@asynccontextmanager
async def house(home: Path, *models: str) -> AsyncIterator[House]:
    url = f"sqlite:///{home}/account.db"
    home.mkdir()
    await prepared(url, FREE, LIMITED, CUT, NONE)
    program = Program(home / "home", configured(url, *models))
    async with (
        living(program),
        open_store(url) as store,
        crowd(program.url, [FREE], [], random.Random(0)) as clients,
    ):
        yield House(clients, store)


async def check_whole(house: House, model: str, counted_by: str) -> Any:
    """Complete, as a stream and not: both are posted alike."""
    postings = []
    for stream in (False, True):
        had, posting = await house.ask(model, stream=stream)
        assert (had.status, had.whole) == (200, True)
        assert (posting.ending, posting.counted_by, posting.streamed) == ("complete", counted_by, stream)
        assert posting.completion_tokens >= had.words > 0
        assert posting.error is None
        postings.append(posting)
    assert len({(posting.prompt_tokens, posting.completion_tokens) for posting in postings}) == 1
    return postings[0]


async def check_left(house: House, model: str, whole: Any) -> None:
    """A client that leaves pays for the prompt, and for what was made until it was noticed."""
    had, posting = await house.ask(model, stream=True, leave_after=5)
    assert (posting.ending, posting.counted_by) == ("client_gone", "estimate")
    assert had.words <= posting.completion_tokens < whole.completion_tokens
    assert posting.prompt_tokens > 0
    posting = await house.left_before(FREE, model)
    assert (posting.ending, posting.counted_by, posting.completion_tokens) == ("client_gone", "estimate", 0)
    assert posting.prompt_tokens > 0


async def check_limited(house: House, model: str, bound: int, **fields: Any) -> None:
    """Limited by what is left, and refused where that is nothing. `bound`: of the prompt."""
    await house.limit(LIMITED, bound + 9)
    await house.limit(CUT, bound + 90)
    await house.limit(NONE, bound)
    await asyncio.sleep(NOTICED)
    had, posting = await house.ask(model, key=LIMITED, stream=True, max_completion_tokens=40, **fields)
    assert (had.status, had.finish, had.headers["x-chatport-clamped"]) == (200, "length", "9")
    assert (posting.ending, posting.over_hold) == ("complete", False)
    assert posting.completion_tokens <= 9
    refused = await house.clients.ask(NONE, model=model, **{"seed": LONG, **fields})
    assert refused is not None
    assert (refused.status, refused.code) == (401, "insufficient_quota")
    assert all(row.key_id != NONE.id for row in await rows(house.store, "postings"))


async def check_cut(house: House, model: str, *, stream: bool, **fields: Any) -> None:
    """An answer without a limit of its own, whose budget ends on the way."""
    had, posting = await house.ask(model, key=CUT, stream=stream, **fields)
    assert (had.status, had.finish, had.whole) == (200, "length", True)
    assert "x-chatport-clamped" not in had.headers
    assert (posting.ending, posting.counted_by, posting.over_hold) == ("cut", "estimate", False)
    assert 0 < posting.completion_tokens < LONG


async def test_scripted(tmp_path: Path) -> None:
    async with house(tmp_path / "h", SCRIPTED) as one:
        whole = await check_whole(one, "scripted", "tokenizer")
        assert whole.completion_tokens == LONG
        await check_left(one, "scripted", whole)
        await check_limited(one, "scripted", whole.prompt_tokens)
        for stream in (False, True):
            had, posting = await one.ask("broken", stream=stream)
            assert (had.status, posting.ending, posting.error) == (500, "upstream_error", "500 api_error")
            assert (posting.prompt_tokens, posting.completion_tokens, posting.charge_nano) == (0, 0, 0)


@pytest.mark.parametrize("stream", [True, False], ids=["cut as a stream", "cut as a whole"])
async def test_upstream(tmp_path: Path, stream: bool) -> None:
    async with counted(pause=0.004) as upstream:
        models = [upstream.model(name) for name in ("says", "silent", "fails", "breaks")]
        models.append(upstream.model("falls", "fails", "says", attempts=2))
        async with house(tmp_path / "h", *models) as one:
            whole = await check_whole(one, "says", "upstream")
            assert (whole.prompt_tokens, whole.completion_tokens) == (PROMPT, LONG)
            silent = await check_whole(one, "silent", "estimate")
            assert silent.completion_tokens == LONG
            await check_left(one, "says", whole)
            await check_failures(one, upstream)
            await check_limited(one, "says", 64 + 16 + len("Count."))
            await check_cut(one, "says", stream=stream)
            *_, last = upstream.served.values()
            assert last.made < LONG, "it was not cut where it was made"


async def check_failures(house: House, upstream: Counted) -> None:
    """Before the first token it costs nothing, after it what was made."""
    for stream in (False, True):
        had, posting = await house.ask("fails", stream=stream)
        assert (had.status, posting.ending, posting.prompt_tokens) == (500, "upstream_error", 0)
        had, posting = await house.ask("falls", stream=stream)
        assert (had.status, posting.ending, posting.attempts, posting.target) == (200, "complete", 2, "upstream-2")
        assert posting.completion_tokens == LONG
        assert [row.outcome for row in await rows(house.store, "attempts") if row.request_id == posting.id] == [
            "500 api_error"
        ]
    had, posting = await house.ask("breaks", stream=True)
    made = upstream.served[had.request_id].made
    assert (had.status, had.code, had.words) == (200, "error", made)
    assert (posting.ending, posting.counted_by, posting.completion_tokens) == ("upstream_error", "estimate", made)
    had, posting = await house.ask("breaks", stream=False)
    assert (had.status, posting.ending, posting.prompt_tokens) == (500, "upstream_error", 0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_embedded(tmp_path: Path, smollm2_path: Path, stream: bool) -> None:
    model = f'[[models]]\nid = "inside"\nbackend = "llama"\npath = "{smollm2_path}"\ncontext = 2048\n'
    story: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a long story about a dragon."}]}
    async with house(tmp_path / "h", model) as one:
        had, posting = await one.ask("inside", stream=True, max_completion_tokens=LONG, **story)
        assert (had.status, posting.ending, posting.counted_by) == (200, "complete", "tokenizer")
        assert (posting.completion_tokens, had.finish) == (LONG, "length")
        left, gone = await one.ask("inside", stream=True, leave_after=5, **story)
        assert (gone.ending, gone.prompt_tokens) == ("client_gone", posting.prompt_tokens)
        assert left.words <= gone.completion_tokens
        await check_limited(one, "inside", posting.prompt_tokens, **story)
        # What it may say is known here to the token: it is limited from the start, and spends its budget to the end.
        had, posting = await one.ask("inside", key=CUT, stream=stream, **story)
        assert (had.finish, had.headers["x-chatport-clamped"]) == ("length", "90")
        assert (posting.ending, posting.counted_by, posting.completion_tokens) == ("complete", "tokenizer", 90)
