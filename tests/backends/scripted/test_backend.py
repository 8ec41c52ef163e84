"""The scripted backend as a member of the family: the suite, and its knobs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chatport.backends.base import Backend
from chatport.backends.scripted import FEATURES, ScriptedBackend
from chatport.targets import Feature, Target
from chatport.wire.chat import ChatChunk
from chatport.wire.errors import ApiError, InternalError, InvalidRequest, RateLimited, Unavailable
from support.backend_suite import BackendSuite, ask, completed, content, streamed

TARGET = Target(id="t", backend="b", model="small", features=FEATURES)


class TestEcho(BackendSuite):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend()

    @pytest.fixture
    def target(self) -> Target:
        return TARGET


class TestReplyInAWindow(BackendSuite):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(["春", "天", " came", ", ", "", "and \x00", "🌱", "!\n"], delay_ms=1)

    @pytest.fixture
    def target(self) -> Target:
        return Target(id="t", backend="b", model="small", features=FEATURES, context=40)


def test_it_promises_no_sound_and_no_search() -> None:
    assert set(Feature) - FEATURES == {Feature.AUDIO_OUTPUT, Feature.WEB_SEARCH, Feature.MODERATION}


async def test_pieces_leave_one_by_one_and_are_counted() -> None:
    frames = await streamed(ScriptedBackend(["Hel", "lo"]), TARGET, ask("a b c", max_tokens=None))
    said = [choice["delta"].get("content") for frame in frames for choice in frame["choices"]]
    assert said == ["", "Hel", "lo", None]
    usage = frames[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (4, 2, 6)


async def test_choices_are_said_side_by_side() -> None:
    frames = await streamed(ScriptedBackend(["a", "b"]), TARGET, ask(n=2))
    said = [(c["index"], c["delta"]["content"]) for f in frames for c in f["choices"] if c["delta"].get("content")]
    assert said == [(0, "a"), (1, "a"), (0, "b"), (1, "b")]


async def test_a_window_that_leaves_less_clamps() -> None:
    target = Target(id="t", backend="b", model="m", context=6)
    backend = ScriptedBackend(["a", "b", "c"])
    room_enough = await backend.bound(target, ask("x x", max_tokens=3))
    assert (room_enough.clamped, room_enough.output_tokens) == (None, 3)
    for limit in (5, None):
        request = ask("x x x", max_tokens=limit, n=2)
        bound = await backend.bound(target, request)
        assert (bound.prompt_tokens, bound.clamped, bound.output_tokens) == (4, 2, 4)
        reply = await completed(backend, target, request)
        assert (content(reply), reply["choices"][0]["finish_reason"]) == ("ab", "length")


async def test_a_full_window_leaves_nothing() -> None:
    target = Target(id="t", backend="b", model="m", context=2)
    reply = await completed(ScriptedBackend(["a"]), target, ask("x"))
    assert (content(reply), reply["choices"][0]["finish_reason"]) == ("", "length")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (422, InvalidRequest),
        (401, InternalError),
        (403, InternalError),
        (404, InternalError),
        (429, RateLimited),
        (500, InternalError),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
async def test_it_fails_as_an_upstream_would(status: int, error: type[ApiError]) -> None:
    backend = ScriptedBackend(fail_status=status)
    bound = await backend.bound(TARGET, ask())
    with pytest.raises(error, match=f"status {status}") as failure:
        await backend.complete(TARGET, ask(), bound)
    assert type(failure.value) is error
    assert ("retry-after" in failure.value.headers) == (status in (429, 502, 503, 504))
    assert backend.in_flight == 0


@pytest.mark.parametrize(("after", "heard"), [(0, ""), (2, "ab"), (9, "abc")])
async def test_it_fails_midway(after: int, heard: str) -> None:
    backend = ScriptedBackend(["a", "b", "c"], fail_status=503, fail_after=after)
    seen: list[ChatChunk] = []

    async def read() -> None:
        async with backend.stream(TARGET, ask(), await backend.bound(TARGET, ask())) as chunks:
            async for chunk in chunks:
                seen.append(chunk)  # noqa: PERF401  what came before the failure is wanted

    with pytest.raises(Unavailable):
        await read()
    assert "".join(str(chunk.choices[0].delta.content) for chunk in seen) == heard
    assert backend.in_flight == 0


async def test_each_piece_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await completed(ScriptedBackend(["a", "b"], delay_ms=250), TARGET, ask(n=3))
    assert waits == [0.25, 0.25]


async def test_closing_ends_what_is_being_said() -> None:
    backend = ScriptedBackend(["a", "b"])
    request: Any = ask()
    bound = await backend.bound(TARGET, request)
    async with backend.stream(TARGET, request, bound) as chunks:
        assert backend.in_flight == 1
        await anext(chunks)
        await backend.close()
        with pytest.raises(Unavailable):
            await anext(chunks)
