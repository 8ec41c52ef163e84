"""The rules that other tests rely on: each of them must be able to find its fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from support.stream_rules import check_same_answer, check_stream, joined, read_stream

Frames = list[dict[str, Any]]


def frame(delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "system_fingerprint": "fp_1",
        "usage": None,
    }


def call(**more: Any) -> dict[str, Any]:
    return frame({"tool_calls": [{"index": 0, **more}]})


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
ITEM = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
GOOD: Frames = [
    frame({"role": "assistant", "content": ""}),
    frame({"content": "Hi"}, logprobs={"content": [ITEM], "refusal": None}),
    call(id="c1", type="function", function={"name": "f", "arguments": ""}),
    call(function={"arguments": "{}"}),
    frame({}, "stop"),
    {**frame({}), "choices": [], "usage": USAGE},
]


def check(frames: Frames) -> None:
    check_stream(frames, include_usage=True, logprobs=True, stop=["never"])


def test_a_good_stream_passes() -> None:
    check(GOOD)


def change(path: str, value: Any) -> Callable[[Frames], None]:
    """Sets what the path names, `1.choices.0.index`; `...` takes it away."""

    def changed(frames: Frames) -> None:
        *steps, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
        at: Any = frames
        for step in steps:
            at = at[step]
        if value is ...:
            del at[last]
        else:
            at[last] = value

    return changed


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(change("1.id", "chatcmpl-2"), id="another id"),
        pytest.param(change("1.model", ...), id="no model"),
        pytest.param(change("1.system_fingerprint", ""), id="no fingerprint"),
        pytest.param(change("1.object", "chat.completion"), id="another object"),
        pytest.param(change("1.usage", ...), id="usage not null"),
        pytest.param(change("1.usage", USAGE), id="usage too early"),
        pytest.param(change("5.usage.total_tokens", 4), id="usage that does not add up"),
        pytest.param(change("5", ...), id="no usage"),
        pytest.param(change("1.choices.0.logprobs", ...), id="a key missing"),
        pytest.param(change("1.choices.0.index", 1), id="an index nobody asked for"),
        pytest.param(change("0.choices.0.delta.role", ...), id="no role"),
        pytest.param(change("0.choices.0.delta.content", None), id="null before text"),
        pytest.param(change("1.choices.0.delta.role", "assistant"), id="role repeated"),
        pytest.param(change("1.choices.0.delta", {}), id="an empty delta"),
        pytest.param(change("1.choices.0.finish_reason", "stop"), id="finished twice"),
        pytest.param(change("4.choices.0.finish_reason", None), id="never finished"),
        pytest.param(change("4.choices.0.finish_reason", "tired"), id="an unknown reason"),
        pytest.param(change("4.choices.0.delta.content", "x"), id="text with the finish"),
        pytest.param(change("3.choices.0.delta.reasoning_content", "hm"), id="late reasoning"),
        pytest.param(change("1.choices.0.delta.annotations", []), id="no annotations in their list"),
        pytest.param(change("1.choices.0.delta.audio", {}), id="audio without anything"),
        pytest.param(change("2.choices.0.delta.tool_calls.0.index", 1), id="a gap in the calls"),
        pytest.param(change("2.choices.0.delta.tool_calls.0.id", ""), id="no call id"),
        pytest.param(change("2.choices.0.delta.tool_calls.0.type", ...), id="no call type"),
        pytest.param(change("2.choices.0.delta.tool_calls.0.function.arguments", "{"), id="text in a call's head"),
        pytest.param(change("3.choices.0.delta.tool_calls.0.id", "c1"), id="a call id repeated"),
        pytest.param(change("3.choices.0.delta.tool_calls.0.function.name", "f"), id="a call's name repeated"),
        pytest.param(change("1.choices.0.logprobs", None), id="no logprobs"),
        pytest.param(change("1.choices.0.logprobs.content.0.bytes", [72]), id="logprobs of another text"),
        pytest.param(change("1.choices.0.logprobs.content.0.logprob", 0.5), id="a probability above 1"),
        pytest.param(change("1.choices.0.delta.content", "never"), id="a stop sequence leaked"),
        pytest.param(change("1.choices.0.delta.content", "H\ufffd"), id="a broken character"),
    ],
)
def test_a_fault_is_found(fault: Callable[[Frames], None]) -> None:
    frames = copy.deepcopy(GOOD)
    fault(frames)
    with pytest.raises((AssertionError, KeyError)):
        check(frames)


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {}\n\n",
        b"data: [DONE]\n\ndata: {}\n\n",
        b"data: [DONE]\n\ndata: [DONE]\n\n",
        b"data: {}\ndata: {}\n\ndata: [DONE]\n\n",
        b"data: {}\r\n\ndata: [DONE]\n\n",
        b"event: x\n\ndata: [DONE]\n\n",
        b'data: {"a": "\xff"}\n\ndata: [DONE]\n\n',
        b"data: {\n\ndata: [DONE]\n\n",
    ],
)
def test_bad_framing_is_found(raw: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        read_stream(raw)


def test_frames_are_read() -> None:
    raw = b": hello\n\n" + b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in GOOD) + b"data: [DONE]\n\n"
    assert read_stream(raw) == GOOD


def test_the_answer_is_joined() -> None:
    made = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert joined(GOOD) == [
        {
            "index": 0,
            "message": {"content": "Hi", "tool_calls": made},
            "logprobs": {"content": [ITEM], "refusal": None},
            "finish_reason": "stop",
        }
    ]
    whole = {"choices": copy.deepcopy(joined(GOOD))}
    check_same_answer(GOOD, whole)
    for key, other in (("content", "Ho"), ("annotations", [{}]), ("audio", {"data": ""})):
        changed = copy.deepcopy(whole)
        changed["choices"][0]["message"][key] = other
        with pytest.raises(AssertionError):
            check_same_answer(GOOD, changed)


def test_an_empty_answer_is_empty() -> None:
    nothing = [GOOD[0], frame({}, "length"), GOOD[-1]]
    check_stream(nothing, include_usage=True, empty=True)
    with pytest.raises(AssertionError):
        check_stream(GOOD, include_usage=True, empty=True)
