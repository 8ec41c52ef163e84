"""Thoughts over a real port, direct and through an upstream: apart from the answer, before it, counted, taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.asking import Api
from support.serving import behind, serving
from support.stream_rules import check_same_answer
from support.thinking import SHOWN, TEMPLATE

BODY: dict[str, Any] = {"model": "thinker", "messages": [*SHOWN, {"role": "user", "content": "one"}], "max_tokens": 60}
EXACT = {**BODY, "temperature": 0}


@pytest.fixture(scope="module", params=["direct", "behind another"])
def thinker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path
) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("thinker")
    (home / "thinks.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = f"""
[[models]]
id = "thinker"
backend = "llama"
path = "{smollm2_path}"
chat_template = "thinks.jinja"
context = 2048
slots = 2
"""
    with serving(home, config) as server:
        if request.param == "direct":
            api = Api(server)
            yield api
            api.close()
            return
        with serving(tmp_path_factory.mktemp("front"), behind(server, {"thinker": ()})) as front:
            api = Api(front)
            yield api
            api.close()


def test_thoughts_are_apart_from_the_answer_and_counted(thinker: Api) -> None:
    reply = thinker.completion(**EXACT)
    message = reply["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("\nsay it\n", "ONE")
    usage = reply["usage"]
    assert 4 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_in_a_stream_they_come_before_it(thinker: Api) -> None:
    frames = thinker.stream(**EXACT, stream_options={"include_usage": True}).frames
    check_same_answer(frames, thinker.completion(**EXACT))
    deltas = [choice["delta"] for frame in frames for choice in frame["choices"]]
    thoughts = [number for number, delta in enumerate(deltas) if delta.get("reasoning_content")]
    texts = [number for number, delta in enumerate(deltas) if delta.get("content")]
    assert thoughts
    assert max(thoughts) < min(texts)


def test_a_limit_counts_the_thought(thinker: Api) -> None:
    reply = thinker.completion(**{**EXACT, "max_completion_tokens": 5})
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["choices"][0]["message"]["content"] == ""
    assert reply["usage"]["completion_tokens"] == 5


def test_the_reply_s_message_goes_back_as_it_came(thinker: Api) -> None:
    message = thinker.completion(**EXACT)["choices"][0]["message"]
    messages = [*BODY["messages"], message, {"role": "user", "content": "one"}]
    assert thinker.completion(**{**EXACT, "messages": messages})["choices"][0]["message"]["role"] == "assistant"


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "high", "max"])
def test_every_effort_is_taken(thinker: Api, effort: str) -> None:
    assert thinker.completion(**{**EXACT, "reasoning_effort": effort, "max_completion_tokens": 3})["choices"]
