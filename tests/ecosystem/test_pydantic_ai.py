"""pydantic-ai: typed output by each of its ways, tools that must be called, streams and usage."""

from __future__ import annotations

from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, Field
from pydantic_ai import (
    Agent,
    ModelHTTPError,
    NativeOutput,
    PromptedOutput,
    RunContext,
    ToolOutput,
    UsageLimitExceeded,
    UsageLimits,
)
from pydantic_ai.messages import ToolCallPart, ToolReturnPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

QUESTION = "Which city is in Italy?"
BRIEF = ModelSettings(temperature=0, max_tokens=60)


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "Rome"]
    size: int = Field(default=1, ge=0, le=9)
    twin: Literal["Rome", "Oslo"] | None = None


OUTPUTS: dict[str, Any] = {
    "tool": ToolOutput(City),
    "strict-tool": ToolOutput(City, strict=True),
    "native": NativeOutput(City),
    "strict-native": NativeOutput(City, strict=True),
    "one-of-two": [ToolOutput(City, name="city"), ToolOutput(bool, name="none")],
}


@pytest.fixture
def model(client: openai.AsyncOpenAI) -> OpenAIChatModel:
    return OpenAIChatModel("gpt-4", provider=OpenAIProvider(openai_client=client), settings=BRIEF)


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
async def test_typed_output(model: OpenAIChatModel, output: Any) -> None:
    done = await Agent(model, output_type=output, instructions="Be short.").run(QUESTION)
    assert isinstance(done.output, City | bool)
    assert done.usage.requests == 1
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0
    assert done.response.model_name == "smollm2-135m"


@pytest.mark.parametrize("name", ["tool", "native"])
async def test_typed_output_streamed_is_the_plain_one(model: OpenAIChatModel, name: str) -> None:
    agent: Agent[None, City] = Agent(model, output_type=OUTPUTS[name])
    async with agent.run_stream(QUESTION) as running:
        parts = [part async for part in running.stream_output(debounce_by=None)]
    plain = await agent.run(QUESTION)
    assert parts[-1] == plain.output
    assert running.usage.total_tokens == plain.usage.total_tokens


async def test_prompted_output(client: openai.AsyncOpenAI) -> None:
    rome = OpenAIChatModel("rome", provider=OpenAIProvider(openai_client=client))
    done = await Agent(rome, output_type=PromptedOutput(City)).run(QUESTION)
    assert done.output == City(name="Rome", size=3)


async def test_text_streamed(model: OpenAIChatModel) -> None:
    agent = Agent(model)
    async with agent.run_stream("What is the capital of France?") as running:
        pieces = [piece async for piece in running.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 1
    assert "".join(pieces) == "The capital of France is Paris."


@pytest.mark.parametrize("choice", ["required", ["weather"]], ids=["required", "named"])
async def test_a_forced_call_and_its_result(model: OpenAIChatModel, choice: Any) -> None:
    """The first answer must be a call; the second, to its result, is free."""
    asked: list[str] = []

    def forced_once(context: RunContext[None]) -> ModelSettings:
        return ModelSettings(tool_choice=choice) if context.run_step == 1 else ModelSettings(tool_choice="none")

    agent = Agent(model, model_settings=forced_once)

    @agent.tool_plain
    def weather(city: Literal["Paris", "Rome"], days: int = 1) -> str:
        """Tells the weather in a city."""
        asked.append(city)
        return f"sunny in {city}"

    done = await agent.run(QUESTION)
    parts = [part for message in done.all_messages() for part in message.parts]
    calls = [part for part in parts if isinstance(part, ToolCallPart)]
    results = [part for part in parts if isinstance(part, ToolReturnPart)]
    assert [call.tool_call_id for call in calls] == [result.tool_call_id for result in results]
    assert [result.content for result in results] == [f"sunny in {city}" for city in asked]
    assert calls
    assert done.usage.requests == 2
    assert isinstance(done.output, str)


async def test_a_conversation_goes_on(model: OpenAIChatModel) -> None:
    agent: Agent[None, City] = Agent(model, output_type=City)
    first = await agent.run(QUESTION)
    second = await agent.run("And in France?", message_history=first.all_messages())
    assert isinstance(second.output, City)
    assert second.usage.input_tokens > first.usage.input_tokens


async def test_limits_are_kept_by_our_usage(model: OpenAIChatModel) -> None:
    with pytest.raises(UsageLimitExceeded):
        await Agent(model).run(QUESTION, usage_limits=UsageLimits(input_tokens_limit=5))


async def test_errors_name_the_field(model: OpenAIChatModel) -> None:
    with pytest.raises(ModelHTTPError) as raised:
        await Agent(model).run(QUESTION, model_settings=ModelSettings(temperature=9))
    assert raised.value.status_code == 400
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["param"] == "temperature"
