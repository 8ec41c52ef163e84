"""A hundred strict schemas, and what the model writes for them at temperature 1: valid, every time."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest

from chatport.backends.llama import LlamaBackend
from chatport.wire.chat import ChatRequest, Choice, FunctionToolCall
from support.backend_suite import completed, streamed
from support.embedded import TARGET, ask, choice
from support.schemas import check_fits, letters, strict_schema
from support.stream_rules import check_same_answer

COUNT = int(os.environ.get("CHATPORT_TEST_SCHEMAS", "100"))
"""Schemas in a run; more by the variable."""
AT_ONCE = 4
LIMIT = 200
"""Tokens. An answer that reaches it promises nothing, so few may."""


def wish(number: int, **fields: Any) -> ChatRequest:
    """Every fifth by a function's arguments, whose schema the model must read first; the rest as the answer itself."""
    schema = strict_schema(number)
    form = {"name": letters(number), "strict": True}
    if number % 5 == 1:
        function = {**form, "parameters": schema}
        asked: dict[str, Any] = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    else:
        asked = {"response_format": {"type": "json_schema", "json_schema": {**form, "schema": schema}}}
    return ask("Make something up, in JSON.", **{"temperature": 1, "max_tokens": LIMIT, **asked, **fields})


def values(made: Choice) -> list[Any]:
    """What was written, whole; nothing of an answer that was cut before."""
    calls = made.message.tool_calls
    if isinstance(calls, list):
        whole = calls if made.finish_reason == "tool_calls" else calls[:-1]
        return [json.loads(call.function.arguments) for call in whole if isinstance(call, FunctionToolCall)]
    return [json.loads(made.message.content or "")] if made.finish_reason == "stop" else []


@pytest.mark.timeout(600)
async def test_every_value_fits_its_schema(backend: LlamaBackend) -> None:
    lanes = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> bool:
        async with lanes:
            made = await choice(backend, wish(number))
        found = values(made)
        for value in found:
            check_fits(value, strict_schema(number))
        return bool(found)

    whole = sum(await asyncio.gather(*(one(number) for number in range(COUNT))))
    assert whole >= 0.9 * COUNT, f"only {whole} of {COUNT} answers came to their end"


@pytest.mark.parametrize("number", range(8))
async def test_streams_join_to_the_reply(backend: LlamaBackend, number: int) -> None:
    request = wish(number, seed=number)
    check_same_answer(await streamed(backend, TARGET, request), await completed(backend, TARGET, request))
