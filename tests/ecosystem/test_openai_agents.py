"""openai-agents: its own runner on Chat Completions, with a typed answer, and with a tool that it is told to use."""

from __future__ import annotations

from typing import Any, Literal

import agents
import openai
import pytest
from pydantic import BaseModel, Field

QUESTION = "Which city is in Italy?"
UNTRACED = agents.RunConfig(tracing_disabled=True)


class City(BaseModel):
    name: Literal["Paris", "Rome"]
    size: int = Field(ge=0, le=9)
    twin: Literal["Rome", "Oslo"] | None


class Asked:
    """A tool that remembers what it was asked."""

    def __init__(self) -> None:
        self.cities: list[str] = []

        @agents.function_tool
        def weather(city: Literal["Paris", "Rome"], days: int = 1) -> str:
            """Tells the weather in a city."""
            self.cities.append(city)
            return f"sunny in {city}"

        self.tool = weather


@pytest.fixture
def model(client: openai.AsyncOpenAI) -> agents.Model:
    return agents.OpenAIChatCompletionsModel("gpt-4", client)


def agent(model: agents.Model, *, settings: dict[str, Any] | None = None, **fields: Any) -> agents.Agent[None]:
    chosen = agents.ModelSettings(**{"temperature": 0, "max_tokens": 48, "include_usage": True, **(settings or {})})
    return agents.Agent("geographer", instructions="Be short.", model=model, model_settings=chosen, **fields)


async def test_a_typed_answer(model: agents.Model) -> None:
    done = await agents.Runner.run(agent(model, output_type=City), QUESTION, run_config=UNTRACED)
    assert isinstance(done.final_output, City)
    usage = done.context_wrapper.usage
    assert usage.requests == 1
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0


async def test_a_typed_answer_streamed_is_the_plain_one(model: agents.Model) -> None:
    typed = agent(model, output_type=City)
    running = agents.Runner.run_streamed(typed, QUESTION, run_config=UNTRACED)
    deltas = [
        event.data.delta
        async for event in running.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert City.model_validate_json("".join(deltas)) == running.final_output
    plain = await agents.Runner.run(typed, QUESTION, run_config=UNTRACED)
    assert running.final_output == plain.final_output
    assert running.context_wrapper.usage.total_tokens == plain.context_wrapper.usage.total_tokens


@pytest.mark.parametrize("choice", ["required", "weather"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_forced_tool_and_what_is_said_then(model: agents.Model, choice: str, streamed: bool) -> None:
    """Two requests: the call, and an answer to its result (the runner lets go of the choice after the first)."""
    asked = Asked()
    forced = agent(model, tools=[asked.tool], settings={"tool_choice": choice, "parallel_tool_calls": False})
    done: agents.RunResultBase
    if streamed:
        done = running = agents.Runner.run_streamed(forced, QUESTION, run_config=UNTRACED, max_turns=2)
        called = [event.name async for event in running.stream_events() if event.type == "run_item_stream_event"]
        assert called == ["tool_called", "tool_output", "message_output_created"]
    else:
        done = await agents.Runner.run(forced, QUESTION, run_config=UNTRACED, max_turns=2)
    kinds = [type(item) for item in done.new_items]
    assert kinds == [agents.ToolCallItem, agents.ToolCallOutputItem, agents.MessageOutputItem]
    assert len(asked.cities) == 1
    assert done.new_items[1].output == f"sunny in {asked.cities[0]}"
    assert done.final_output
    assert done.context_wrapper.usage.requests == 2


async def test_a_call_may_be_the_answer(model: agents.Model) -> None:
    asked = Asked()
    forced = agent(
        model, tools=[asked.tool], settings={"tool_choice": "required"}, tool_use_behavior="stop_on_first_tool"
    )
    done = await agents.Runner.run(forced, QUESTION, run_config=UNTRACED, max_turns=1)
    assert done.final_output == f"sunny in {asked.cities[0]}"


async def test_a_conversation_goes_on(model: agents.Model) -> None:
    """What the runner makes of an answer and a call with its result is sent back, and taken."""
    asked = Asked()
    forced = agent(model, tools=[asked.tool], settings={"tool_choice": "required"})
    first = await agents.Runner.run(forced, QUESTION, run_config=UNTRACED, max_turns=2)
    following: list[agents.TResponseInputItem] = [
        *first.to_input_list(),
        {"role": "user", "content": "And in France?"},
    ]
    second = await agents.Runner.run(agent(model), following, run_config=UNTRACED)
    assert second.final_output
    assert second.context_wrapper.usage.input_tokens > 100, "the last message alone is 40"


async def test_errors_are_the_sdks(model: agents.Model) -> None:
    wrong = agent(model, settings={"temperature": 9})
    with pytest.raises(openai.BadRequestError) as raised:
        await agents.Runner.run(wrong, QUESTION, run_config=UNTRACED)
    assert raised.value.param == "temperature"
