"""The backend that says what it is told: for tests, load tests and dry runs; a full member of the family."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from chatport.backends.base import complete_by_streaming
from chatport.backends.scripted.script import prompt_tokens, write
from chatport.targets import EVERY_FEATURE, Bound, Feature, Target
from chatport.wire.chat import ChatChunk, ChatCompletion, ChatRequest, ChunkChoice, Delta, Usage
from chatport.wire.errors import ApiError, ContextExceeded, InternalError, InvalidRequest, RateLimited, Unavailable

FEATURES: Final = EVERY_FEATURE - {Feature.AUDIO_OUTPUT, Feature.WEB_SEARCH, Feature.MODERATION}
"""What it honours: everything that can be done with text."""

RETRY_AFTER = 1.0
"""Seconds, in the refusals that ask to come again."""


class ScriptedBackend:
    """`reply`: the pieces of every answer, None echoes the last user text. `delay_ms`: wait before each piece.
    `fail_status`: fail as an upstream that answers with this status, after `fail_after` pieces."""

    def __init__(
        self,
        reply: Sequence[str] | None = None,
        *,
        delay_ms: int = 0,
        fail_status: int | None = None,
        fail_after: int = 0,
    ) -> None:
        self._reply = None if reply is None else [piece for piece in reply if piece]
        self._delay = delay_ms / 1000
        self._fail_status = fail_status
        self._fail_after = fail_after
        self._closed = False
        self.in_flight = 0
        """Answers that are open now."""

    async def bound(self, target: Target, request: ChatRequest) -> Bound:
        """Exact: the script is known. Raises ContextExceeded, or Unsupported for a schema it can't write to."""
        prompt = prompt_tokens(request)
        output = write(request, self._reply, request.output_limit).spent
        clamped = None
        if target.context is not None:
            room = target.context - prompt
            if room < 0:
                raise ContextExceeded(target.context, prompt)
            if room < (output if request.output_limit is None else request.output_limit):
                clamped = room
                output = min(output, room)
        return Bound(prompt_tokens=prompt, output_tokens=output * request.choices, counted_by="exact", clamped=clamped)

    async def complete(self, target: Target, request: ChatRequest, bound: Bound) -> ChatCompletion:
        """The whole answer; it takes as long as streaming it."""
        return await complete_by_streaming(self, target, request, bound)

    @asynccontextmanager
    async def stream(
        self, target: Target, request: ChatRequest, bound: Bound
    ) -> AsyncIterator[AsyncIterator[ChatChunk]]:
        """The choices side by side, a token of each in turn."""
        self.in_flight += 1
        try:
            async with aclosing(self._chunks(target, request, bound)) as chunks:
                yield chunks
        finally:
            self.in_flight -= 1

    async def models(self, target: Target) -> list[str]:
        """Whatever it is called."""
        return [target.model]

    async def probe(self, target: Target) -> None:
        """Ready until it is closed; `fail_status` is about answers."""
        if self._closed:
            raise Unavailable(f"The model {target.model} is shut down.")

    async def close(self) -> None:
        """Answers under way end at their next piece."""
        self._closed = True

    async def _chunks(self, target: Target, request: ChatRequest, bound: Bound) -> AsyncGenerator[ChatChunk, None]:
        await self.probe(target)
        script = write(request, self._reply, request.output_limit if bound.clamped is None else bound.clamped)
        choices = range(request.choices)
        for token in script.tokens if self._fail_status is None else script.tokens[: self._fail_after]:
            await asyncio.sleep(self._delay)
            await self.probe(target)
            for index in choices:
                yield _chunk(target, ChunkChoice(index=index, delta=token.delta, logprobs=token.logprobs))
        if self._fail_status is not None:
            raise failure(self._fail_status)
        for index in choices:
            yield _chunk(target, ChunkChoice(index=index, delta=Delta(), finish_reason=script.finish))
        yield _chunk(target, usage=_usage(bound.prompt_tokens, script.spent * request.choices))


def _chunk(target: Target, *choices: ChunkChoice, usage: Usage | None = None) -> ChatChunk:
    """Bare: the envelope is the normaliser's business."""
    return ChatChunk(
        id="", created=0, model=target.model, choices=list(choices), system_fingerprint=target.fingerprint, usage=usage
    )


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def failure(status: int) -> ApiError:
    """What an upstream's status becomes for our client (contract.md §12)."""
    told = f"The scripted model was told to fail with status {status}."
    match status:
        case 400 | 413 | 422:
            return InvalidRequest(told)
        case 429:
            return RateLimited(told, retry_after=RETRY_AFTER)
        case 408 | 502 | 503 | 504 | 529:
            return Unavailable(told, retry_after=RETRY_AFTER)
    return InternalError(told)
