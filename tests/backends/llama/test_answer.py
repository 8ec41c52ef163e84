"""Many requests at once: waiting, sharing, leaving."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chatport.backends.llama import LlamaBackend
from chatport.wire.errors import Unavailable
from support.embedded import END_OF_TURN, TARGET, answer, ask, busy_slots, text


async def test_requests_that_do_not_fit_together_wait_for_each_other(small: LlamaBackend) -> None:
    request = ask("word " * 100, max_tokens=60, logit_bias={END_OF_TURN: -100, "1": -100, "0": -100})
    replies = await asyncio.gather(answer(small, request), answer(small, request))
    assert [reply.usage.completion_tokens for reply in replies] == [60, 60]


async def test_the_queue_is_bounded(small: LlamaBackend) -> None:
    request = ask("word " * 100, max_tokens=100, logit_bias={END_OF_TURN: -100, "1": -100, "0": -100})
    bound = await small.bound(TARGET, request)
    running = [asyncio.create_task(small.complete(TARGET, request, bound)) for _ in range(2)]
    while small.in_flight < 2:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refusal:
        await small.complete(TARGET, request, bound)
    assert refusal.value.retry_after is not None
    await asyncio.gather(*running)


async def first_piece(chunks: AsyncIterator[Any]) -> None:
    async for chunk in chunks:
        if chunk.choices and chunk.choices[0].delta.content:
            return


async def test_a_long_generation_does_not_block_short_requests(backend: LlamaBackend) -> None:
    forever = ask("Tell me a story.", max_tokens=2000, logit_bias={END_OF_TURN: -100, "1": -100, "0": -100})
    async with backend.stream(TARGET, forever, await backend.bound(TARGET, forever)) as chunks:
        await first_piece(chunks)
        assert await text(backend, ask()) != ""
        assert backend.in_flight == 1
    assert backend.in_flight == 0


async def test_leaving_frees_the_slot(backend: LlamaBackend) -> None:
    forever = ask("Tell me a story.", max_tokens=2000, logit_bias={END_OF_TURN: -100, "1": -100, "0": -100})
    async with backend.stream(TARGET, forever, await backend.bound(TARGET, forever)) as chunks:
        await first_piece(chunks)
        assert await busy_slots(backend) == 1
    assert backend.in_flight == 0
    async with asyncio.timeout(1):
        while await busy_slots(backend):
            await asyncio.sleep(0.01)


async def test_leaving_while_the_prompt_is_read_stops_at_the_next_batch(backend: LlamaBackend) -> None:
    request = ask("A story of its own. " * 700, temperature=1)
    bound = await backend.bound(TARGET, request)
    reading = asyncio.create_task(backend.complete(TARGET, request, bound))
    while not await busy_slots(backend):
        await asyncio.sleep(0.01)
    began = time.monotonic()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    whole_prompt = bound.prompt_tokens / 500  # seconds; more than this machine reads in one
    assert time.monotonic() - began < max(1.5, whole_prompt / 2)
    assert backend.in_flight == 0


async def test_after_many_cancels_every_slot_is_free(backend: LlamaBackend) -> None:
    dice = random.Random(11)
    requests = [
        ask("Tell me a story. " * length, temperature=1, max_tokens=50, n=n) for length in (1, 20) for n in (1, 2)
    ]
    bounds = [await backend.bound(TARGET, request) for request in requests]

    async def leave_somewhere() -> None:
        which = dice.randrange(len(requests))
        task = asyncio.create_task(backend.complete(TARGET, requests[which], bounds[which]))
        await asyncio.sleep(dice.choice([0, 0, 0.001, 0.01]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for _ in range(25):
        await asyncio.gather(*(leave_somewhere() for _ in range(8)))
    assert backend.in_flight == 0
    async with asyncio.timeout(1):
        while await busy_slots(backend):
            await asyncio.sleep(0.01)
    assert await text(backend, ask()) == "The capital of France is Paris."


async def test_many_at_once_are_each_answered(backend: LlamaBackend) -> None:
    words = ["red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "lilac"]
    requests = [ask(f"Repeat: {word}", max_tokens=4, n=1 + index % 3) for index, word in enumerate(words)]
    replies = await asyncio.gather(*(answer(backend, request) for request in requests))
    assert [len(reply.choices) for reply in replies] == [request.choices for request in requests]
    assert backend.in_flight == 0
