"""A real server of another house as the upstream, llama.cpp's own: streams, calls, logprobs, usage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from support.asking import Api, joined_logprobs
from support.llama_server import KEY, llama_server
from support.serving import serving
from support.stream_rules import check_same_answer

EXACT: dict[str, Any] = {
    "model": "small",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "temperature": 0,
    "max_tokens": 16,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def through(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with llama_server(smollm2_path) as url:
        config = f"""
[[models]]
id = "small"
[[models.targets]]
provider = "llama-server"
base_url = "{url}"
api_key = "{KEY}"
model = "whatever it is called there"
"""
        with serving(tmp_path_factory.mktemp("through"), config) as server:
            api = Api(server)
            yield api
            api.close()


def test_an_answer_and_its_stream_are_the_same_and_counted(through: Api) -> None:
    whole = through.completion(**EXACT)
    streamed = through.stream(**EXACT, stream_options={"include_usage": True})
    assert "Paris" in whole["choices"][0]["message"]["content"]
    check_same_answer(streamed.frames, whole)
    assert whole["model"] == "small"
    assert whole["usage"]["completion_tokens"] > 4
    assert streamed.usage is not None
    for kind in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert streamed.usage[kind] == whole["usage"][kind]


def test_logprobs(through: Api) -> None:
    fields = {**EXACT, "logprobs": True, "top_logprobs": 3}
    whole, streamed = through.completion(**fields)["choices"][0], through.stream(**fields).choices[0]
    items = whole["logprobs"]["content"]
    assert "".join(item["token"] for item in items).strip() == whole["message"]["content"].strip()
    assert all(len(item["top_logprobs"]) == 3 for item in items)
    # Streamed, it leaves out the end of the turn, which has no text.
    said = [item["token"] for item in items if item["token"]]
    assert [item["token"] for item in streamed["logprobs"]["content"]] == said
    assert joined_logprobs(items) == whole["message"]["content"]


def asked(city: str, number: int) -> list[dict[str, Any]]:
    """A round in which the weather was looked up."""
    call = {"id": f"call_{number}", "type": "function"}
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    return [
        {"role": "user", "content": f"Weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "function": function}]},
        {"role": "tool", "tool_call_id": f"call_{number}", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_calls_come_apart_and_results_go_back(through: Api, stream: bool) -> None:
    """This build of the server forces no call; a model that was shown three makes the fourth by itself."""
    shown = [message for number, city in enumerate(("Oslo", "Paris", "Oslo")) for message in asked(city, number)]
    messages = [*shown, {"role": "user", "content": "Weather in Paris?"}]
    fields = {**EXACT, "messages": messages, "tools": [WEATHER], "max_tokens": 60}
    choice = through.stream(**fields).choices[0] if stream else through.completion(**fields)["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert choice["finish_reason"] == "tool_calls"


def test_its_refusal_is_the_contract_s(through: Api) -> None:
    refusal = through.refusal(**{**EXACT, "messages": [{"role": "user", "content": "word " * 6000}]})
    assert (refusal.status, refusal.type) == (400, "invalid_request_error")
    assert "127.0.0.1" not in refusal.message


def test_the_official_sdk(through: Api) -> None:
    server = through.server
    direct = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, http_client=direct) as client:
        with client.chat.completions.stream(
            model="small", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
        ) as stream:
            for _ in stream:
                pass
            assert stream.current_completion_snapshot.choices[0].message.content
        assert [model.id for model in client.models.list()] == ["small"]
