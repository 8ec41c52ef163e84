"""A model that thinks, on the real engine (`support/thinking.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatport.backends.llama import LlamaBackend, ModelFileError
from support.backend_suite import completed, streamed
from support.embedded import TARGET, answer, ask, opened
from support.stream_rules import check_same_answer
from support.thinking import SHOWN, TEMPLATE

CITY = {"type": "object", "properties": {"n": {"enum": ["ONE", "TWO"]}}, "required": ["n"]}


@pytest.fixture(scope="module")
def thinker(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaBackend]:
    template = tmp_path_factory.mktemp("template") / "thinks.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    backend = opened(smollm2_path, context=2048, slots=2, chat_template=template)
    yield backend
    asyncio.run(backend.close())


def shown(question: str = "one", **fields: Any) -> Any:
    return ask(messages=[*SHOWN, {"role": "user", "content": question}], **{"max_tokens": 60, **fields})


async def test_thoughts_come_apart_and_are_counted(thinker: LlamaBackend) -> None:
    reply = await answer(thinker, shown())
    message = reply.choices[0].message
    assert (message.reasoning_content, message.content) == ("\nsay it\n", "ONE")
    thought = reply.usage.completion_tokens_details.reasoning_tokens
    assert 4 < thought < reply.usage.completion_tokens
    check_same_answer(await streamed(thinker, TARGET, shown()), await completed(thinker, TARGET, shown()))


async def test_a_limit_may_end_in_the_thought(thinker: LlamaBackend) -> None:
    reply = await answer(thinker, shown(max_tokens=5))
    choice = reply.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("length", "")
    assert choice.message.reasoning_content
    assert reply.usage.completion_tokens_details.reasoning_tokens == reply.usage.completion_tokens == 5


async def test_stop_sequences_act_on_the_answer_alone(thinker: LlamaBackend) -> None:
    message = (await answer(thinker, shown(stop=["it", "N"]))).choices[0].message
    assert (message.reasoning_content, message.content) == ("\nsay it\n", "O")


async def test_json_and_calls_follow_a_thought(thinker: LlamaBackend) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY, "strict": False}}
    message = (await answer(thinker, shown(response_format=form))).choices[0].message
    assert message.reasoning_content == "\nsay it\n"
    assert message.content in ('{"n": "ONE"}', '{"n": "TWO"}')
    tools = [{"type": "function", "function": {"name": "count", "parameters": CITY}}]
    choice = (await answer(thinker, shown(tools=tools, tool_choice="required"))).choices[0]
    assert choice.message.reasoning_content == "\nsay it\n"
    assert isinstance(choice.message.tool_calls, list)
    assert choice.finish_reason == "tool_calls"


async def test_a_thought_that_the_prompt_begins(thinker: LlamaBackend) -> None:
    message = (await answer(thinker, shown("one </think>"))).choices[0].message
    assert message.reasoning_content
    assert not message.reasoning_content.startswith("<think>")


async def test_logprobs_are_of_the_answer(thinker: LlamaBackend) -> None:
    choice = (await answer(thinker, shown(logprobs=True))).choices[0]
    assert choice.logprobs is not None
    said = b"".join(bytes(item.bytes or ()) for item in choice.logprobs.content or ())
    assert said.decode() == choice.message.content == "ONE"


@pytest.mark.parametrize(("content", "sentence"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"{% if", "used")])
def test_a_template_that_can_not_be_used(
    smollm2_path: Path, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    template = tmp_path / "bad.jinja"
    if content is not None:
        template.write_bytes(content)
    with pytest.raises(ModelFileError, match=sentence):
        opened(smollm2_path, chat_template=template)
